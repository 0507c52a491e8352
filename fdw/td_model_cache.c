/*
 * td_model_cache.c - encoder files, mapped read-only.
 *
 * In: an encoder id.  Out: a checked td_encoder on a shared mapping, so that a hundred backends
 * hold one copy.  Called by td_registry.c when it builds a snapshot and by ruvector_embed().
 *
 * A mapping keeps its content as long as somebody pins it, whatever happens to the file;
 * tdpg_encoder_is_current() tells at the start of a statement that there is another.
 * td_encoder_copy.c does the mapping.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "td_encoder_copy.h"
#include "td_error.h"
#include "td_guc.h"
#include "td_model_cache.h"

#define SUFFIX ".tdenc"

/*
 * Microseconds within which a file that was looked at is not looked at again: stat() takes as long as
 * half a decision.  A client that replaces the file between two statements needs longer.
 */
#define LOOK_INTERVAL 200

struct TdEncoderFile
{
	struct TdEncoderFile *next; /* in the list of mapped files */
	td_encoder view;
	TdMapping map;
	int pins;
	struct stat stat; /* of the file when it was mapped */
	TimestampTz looked_at; /* start of the statement that last found it on disk */
	uint64 dir_changes; /* tdpg_encoder_dir_changes at that time */
	char path[MAXPGPATH];
};

static TdEncoderFile *mapped = NULL;

/*
 * Where encoders are looked for while tinydancer.encoder_dir is not set: the server's share folder,
 * and the share folder beside which this very module was installed, for servers that load it from
 * a stage of its own.  Nobody who could put a file there could not replace the module as well.
 */
static char folders[3][MAXPGPATH];
static int n_folders = 0;

static const struct
{
	const char *name;
	const char *id;
} known[] = {{"minilm", "minilm-l6-v2-1"}, {"static", "static-1"}};

const char *
tdpg_encoder_id(const char *name)
{
	int i;

	for (i = 0; i < (int) lengthof(known); i++)
	{
		if (strcmp(name, known[i].name) == 0)
			return known[i].id;
	}
	return name;
}

/* The name a person types for an id. */
static const char *
encoder_name(const char *id)
{
	int i;

	for (i = 0; i < (int) lengthof(known); i++)
	{
		if (strcmp(id, known[i].id) == 0)
			return known[i].name;
	}
	return id;
}

/* Ids become file names: what td_file_open() accepts as an id, and so no path. */
static bool
id_is_valid(const char *id)
{
	size_t len = strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789._-");

	return len > 0 && len <= TD_FILE_ID_SIZE && id[len] == '\0' && id[0] != '.';
}

void
tdpg_model_cache_init(void)
{
	char module[MAXPGPATH];
	char libraries[MAXPGPATH];
	char share[MAXPGPATH];
	size_t length;
	size_t suffix;
	Dl_info info;

	get_share_path(my_exec_path, share);
	snprintf(folders[n_folders++], MAXPGPATH, "%s/tinydancer", share);
	if (dladdr((void *) tdpg_model_cache_init, &info) == 0 || info.dli_fname == NULL)
		return;
	strlcpy(module, info.dli_fname, sizeof(module));
	canonicalize_path(module);
	get_parent_directory(module);

	/* make install DESTDIR=stage: what lies before the library folder lies before share too. */
	get_pkglib_path(my_exec_path, libraries);
	length = strlen(module);
	suffix = strlen(libraries);
	if (length > suffix && strcmp(module + length - suffix, libraries) == 0)
		snprintf(folders[n_folders++], MAXPGPATH, "%.*s%s/tinydancer", (int) (length - suffix),
				 module, share);

	/* make install datadir=X/share pkglibdir=X/lib. */
	get_parent_directory(module);
	snprintf(folders[n_folders++], MAXPGPATH, "%s/share/tinydancer", module);
}

/* Whether a look at the disk is recent enough.  Clocks are set back, too. */
static bool
is_recent(TimestampTz looked_at, TimestampTz now)
{
	return now >= looked_at && now - looked_at < LOOK_INTERVAL;
}

/* Where the encoder's file is, or where errors say that it is not; whether it is, and its stat(). */
static bool
find_file(const char *id, char *path, struct stat *st)
{
	int i;

	if (tdpg_encoder_dir != NULL && tdpg_encoder_dir[0] != '\0')
	{
		snprintf(path, MAXPGPATH, "%s/%s%s", tdpg_encoder_dir, id, SUFFIX);
		return stat(path, st) == 0;
	}
	for (i = 0; i < n_folders; i++)
	{
		snprintf(path, MAXPGPATH, "%s/%s%s", folders[i], id, SUFFIX);
		if (stat(path, st) == 0)
			return true;
	}
	/* In nobody's folder: errors name the server's own. */
	snprintf(path, MAXPGPATH, "%s/%s%s", folders[0], id, SUFFIX);
	return false;
}

const char *
tdpg_encoder_default_id(void)
{
	static const char *last = NULL;
	static TimestampTz looked_at = 0;
	static uint64 dir_changes = 0;
	TimestampTz now = GetCurrentStatementStartTimestamp();
	char path[MAXPGPATH];
	struct stat st;

	if (last == NULL || dir_changes != tdpg_encoder_dir_changes || !is_recent(looked_at, now))
	{
		last = find_file("minilm-l6-v2-1", path, &st) ? "minilm-l6-v2-1" : "static-1";
		looked_at = now;
		dir_changes = tdpg_encoder_dir_changes;
	}
	return last;
}

static bool
same_file(const TdEncoderFile *file, const struct stat *st)
{
	const struct stat *was = &file->stat;

	/* The time of change tells also of who sets the time of modification back. */
	return was->st_dev == st->st_dev && was->st_ino == st->st_ino && was->st_size == st->st_size &&
		   was->st_mtim.tv_sec == st->st_mtim.tv_sec &&
		   was->st_mtim.tv_nsec == st->st_mtim.tv_nsec &&
		   was->st_ctim.tv_sec == st->st_ctim.tv_sec && was->st_ctim.tv_nsec == st->st_ctim.tv_nsec;
}

static TdEncoderFile *
find_mapped(const char *path, const struct stat *st)
{
	TdEncoderFile *file;

	for (file = mapped; file != NULL; file = file->next)
	{
		if (strcmp(file->path, path) == 0 && same_file(file, st))
			return file;
	}
	return NULL;
}

static void
fill_fault(TdEncoderFault *fault, int sqlstate, const char *id, const char *path,
		   const char *message, const char *why)
{
	char folder[MAXPGPATH];

	static const char *const names[] = {"minilm", "static", TD_EXTERNAL_ENCODER};
	const char *meant = NULL;

	strlcpy(folder, path, sizeof(folder));
	get_parent_directory(folder);
	if (sqlstate == ERRCODE_UNDEFINED_FILE && strcmp(encoder_name(id), id) == 0)
		meant = tdpg_closest(id, names, lengthof(names));
	fault->sqlstate = sqlstate;
	snprintf(fault->message, sizeof(fault->message), "cannot use encoder \"%s\": %s", id, message);
	snprintf(fault->detail, sizeof(fault->detail), "File \"%s\": %s.", path, why);
	if (meant != NULL)
		snprintf(fault->hint, sizeof(fault->hint), "Perhaps you meant \"%s\".", meant);
	else
		snprintf(fault->hint, sizeof(fault->hint),
				 "Build it with: tinydancer encoder build %s --dir '%.300s'", encoder_name(id),
				 folder);
}

void
tdpg_encoder_raise(const TdEncoderFault *fault)
{
	ereport(ERROR, (errcode(fault->sqlstate), errmsg("%s", fault->message),
					errdetail("%s", fault->detail), errhint("%s", fault->hint)));
	pg_unreachable();
}

static void
unmap(TdEncoderFile *file)
{
	TdEncoderFile **link;

	for (link = &mapped; *link != NULL; link = &(*link)->next)
	{
		if (*link == file)
		{
			*link = file->next;
			break;
		}
	}
	tdpg_encoder_unmap(&file->map);
	pfree(file);
}

void
tdpg_encoder_unpin(TdEncoderFile *file)
{
	Assert(file->pins > 0);
	file->pins--;
	if (file->pins == 0)
		unmap(file);
}

/* Checking a file reads all of it, so the last one stays mapped between statements. */
static void
keep_mapped(TdEncoderFile *file)
{
	static TdEncoderFile *kept = NULL;

	if (kept == file)
		return;
	file->pins++;
	if (kept != NULL)
		tdpg_encoder_unpin(kept);
	kept = file;
}

/* Map, check and list a file that is open; the mapping outlives the descriptor. */
static TdEncoderFile *
map_file(const char *id, uint64 checksum, const char *path, int fd, const struct stat *st,
		 TdEncoderFault *fault)
{
	TdEncoderFile *file;
	TdMapping map;
	td_encoder view;
	td_status status;

	if (!S_ISREG(st->st_mode) || st->st_size == 0)
	{
		fill_fault(fault, ERRCODE_DATA_CORRUPTED, id, path, td_status_text(TD_ERR_NOT_FILE),
				   S_ISREG(st->st_mode) ? "the file is empty" : "it is not a regular file");
		return NULL;
	}
	if (!tdpg_encoder_map(path, fd, st, &map, &view, &status))
	{
		fill_fault(fault, ERRCODE_SYSTEM_ERROR, id, path, "could not map file", strerror(errno));
		return NULL;
	}
	if (status != TD_OK)
		fill_fault(fault, tdpg_errcode(status), id, path, td_status_text(status),
				   "the content is not what the encoder builder wrote");
	else if (strcmp(view.file.id, id) != 0)
	{
		char why[128];

		status = TD_ERR_KIND;
		snprintf(why, sizeof(why), "it says that it is encoder \"%s\"", view.file.id);
		fill_fault(fault, ERRCODE_DATA_CORRUPTED, id, path, "the file holds another encoder", why);
		tdpg_encoder_unmap(&map);
	}
	else if (checksum != 0 && view.file.checksum != checksum)
	{
		char why[128];

		status = TD_ERR_CHECKSUM;
		snprintf(why, sizeof(why),
				 "its checksum is %016llx, the database's vectors were made with %016llx",
				 (unsigned long long) view.file.checksum, (unsigned long long) checksum);
		fill_fault(fault, ERRCODE_DATA_CORRUPTED, id, path,
				   "the file is not the one this database was using", why);
		tdpg_encoder_unmap(&map);
	}
	if (status != TD_OK)
		return NULL;

	file = MemoryContextAllocZero(TopMemoryContext, sizeof(TdEncoderFile));
	file->view = view;
	file->map = map;
	file->stat = *st;
	strlcpy(file->path, path, sizeof(file->path));
	file->next = mapped;
	mapped = file;
	return file;
}

TdEncoderFile *
tdpg_encoder_open(const char *id, uint64 checksum, TdEncoderFault *fault)
{
	char path[MAXPGPATH];
	struct stat st;
	TdEncoderFile *file = NULL;
	int fd;

	if (strcmp(id, TD_EXTERNAL_ENCODER) == 0)
	{
		fault->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		snprintf(fault->message, sizeof(fault->message), "encoder \"%s\" does not embed text", id);
		snprintf(fault->detail, sizeof(fault->detail),
				 "It stands for vectors that the caller makes.");
		snprintf(fault->hint, sizeof(fault->hint),
				 "Pass the vector as embedding, or CALL tinydancer.use_encoder('static').");
		return NULL;
	}
	if (!id_is_valid(id))
	{
		fault->sqlstate = ERRCODE_INVALID_PARAMETER_VALUE;
		snprintf(fault->message, sizeof(fault->message), "invalid encoder id \"%.64s\"", id);
		snprintf(fault->detail, sizeof(fault->detail),
				 "An id is 1 to %d of the characters a-z, 0-9, \".\", \"_\" and \"-\".",
				 TD_FILE_ID_SIZE);
		snprintf(fault->hint, sizeof(fault->hint), "The shipped encoder is \"static\".");
		return NULL;
	}
	(void) find_file(id, path, &st);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		int error = errno;

		fill_fault(fault, error == ENOENT ? ERRCODE_UNDEFINED_FILE : ERRCODE_INSUFFICIENT_PRIVILEGE,
				   id, path, error == ENOENT ? "file does not exist" : "could not open file",
				   strerror(error));
		return NULL;
	}
	if (fstat(fd, &st) == 0)
	{
		file = find_mapped(path, &st);
		if (file != NULL && checksum != 0 && file->view.file.checksum != checksum)
			file = NULL;
		if (file == NULL)
			file = map_file(id, checksum, path, fd, &st, fault);
	}
	else
		fill_fault(fault, ERRCODE_SYSTEM_ERROR, id, path, "could not stat file", strerror(errno));
	CloseTransientFile(fd);
	if (file != NULL)
	{
		file->pins++;
		keep_mapped(file);
	}
	return file;
}

bool
tdpg_encoder_is_current(TdEncoderFile *file, const char *id)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	char path[MAXPGPATH];
	struct stat st;

	if (strcmp(id, TD_EXTERNAL_ENCODER) == 0)
		return true;
	if (file != NULL && file->dir_changes == tdpg_encoder_dir_changes &&
		is_recent(file->looked_at, now))
		return true;
	if (!find_file(id, path, &st))
		return file == NULL;
	if (file == NULL || strcmp(path, file->path) != 0 || !same_file(file, &st))
		return false;
	file->looked_at = now;
	file->dir_changes = tdpg_encoder_dir_changes;
	return true;
}

const td_encoder *
tdpg_encoder_view(TdEncoderFile *file)
{
	file->view.level = tdpg_kernel_level();
	return &file->view;
}
