/*
 * td_encoder_copy.c - what sessions map is a checked copy of an encoder file.
 *
 * In: an open encoder file.  Out: a mapping of its content.  Called by td_model_cache.c.
 *
 * A mapped file that somebody cuts in place (cp over it) kills whoever reads behind its new end, and
 * Postgres then ends all sessions.  So the first session that needs an encoder copies the file into the
 * server's folder of temporary files, and everybody maps the copy, which nobody writes into.  It gets
 * its name when it is complete and checked, so a session that finds it need not read all of it.
 *
 * The name of a copy says of which file it is and what stat() said of that; whatever changes the file
 * makes another name.  The server empties the folder when it starts, and base backups leave it out.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "common/file_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "td_encoder_copy.h"

#define FOLDER "base/" PG_TEMP_FILES_DIR

/* The server's own files there have a number behind the prefix. */
#define PREFIX PG_TEMP_FILE_PREFIX "_tinydancer_"

#define BUFFER_SIZE (256 * 1024)

static bool
map_fd(int fd, size_t size, TdMapping *map)
{
	void *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

	map->bytes = bytes == MAP_FAILED ? NULL : bytes;
	map->size = size;
	return map->bytes != NULL;
}

void
tdpg_encoder_unmap(TdMapping *map)
{
	munmap(map->bytes, map->size);
	map->bytes = NULL;
}

/* PREFIX, which file, which content: the first two alone are the same for all contents. */
static void
copy_name(const char *path, const struct stat *st, char *family, char *name)
{
	uint64 facts[] = {(uint64) st->st_dev,			(uint64) st->st_ino,
					  (uint64) st->st_size,			(uint64) st->st_mtim.tv_sec,
					  (uint64) st->st_mtim.tv_nsec, (uint64) st->st_ctim.tv_sec,
					  (uint64) st->st_ctim.tv_nsec};

	snprintf(family, MAXPGPATH, PREFIX "%016llx_",
			 (unsigned long long) td_hash64(path, strlen(path), 0));
	snprintf(name, MAXPGPATH, "%s%016llx", family,
			 (unsigned long long) td_hash64(facts, sizeof(facts), 0));
}

/* Everything that can be said against a content, though it take a while. */
static td_status
check_all(const TdMapping *map, td_encoder *view)
{
	td_status status = td_encoder_open(map->bytes, map->size, view);

	return status == TD_OK ? td_encoder_verify(view) : status;
}

/* Map a copy that was checked when it was made. */
static td_status
map_copy(const char *copy, size_t size, TdMapping *map, td_encoder *view)
{
	td_status status = TD_ERR_NOT_FILE;
	int fd = OpenTransientFile(copy, O_RDONLY | PG_BINARY);
	struct stat st;

	if (fd < 0)
		return status;
	if (fstat(fd, &st) == 0 && (size_t) st.st_size == size && map_fd(fd, size, map))
	{
		status = td_encoder_reopen(map->bytes, map->size, view);
		if (status != TD_OK)
			tdpg_encoder_unmap(map);
	}
	CloseTransientFile(fd);
	return status;
}

/* Copy size bytes; false when the system refuses.  *done is less where the file has become shorter. */
static bool
copy_content(int from, int to, size_t size, size_t *done)
{
	char *buffer = palloc(BUFFER_SIZE);
	bool written = true;

	*done = 0;
	while (written && *done < size)
	{
		ssize_t n = pread(from, buffer, Min(BUFFER_SIZE, size - *done), (off_t) *done);

		if (n == 0)
			break;
		written = n > 0 && pwrite(to, buffer, n, (off_t) *done) == n;
		if (written)
			*done += n;
	}
	pfree(buffer);
	return written;
}

/* Copies of earlier contents of the file; sessions that map one keep it. */
static void
remove_others(const char *family, const char *name)
{
	DIR *dir = AllocateDir(FOLDER);
	struct dirent *entry;

	if (dir == NULL)
		return;
	while ((entry = ReadDirExtended(dir, FOLDER, LOG)) != NULL)
	{
		char old[MAXPGPATH];

		if (strncmp(entry->d_name, family, strlen(family)) != 0 ||
			strcmp(entry->d_name, name) == 0)
			continue;
		snprintf(old, sizeof(old), FOLDER "/%s", entry->d_name);
		(void) unlink(old);
	}
	FreeDir(dir);
}

/*
 * Make the copy, check it, and give it its name.  *made is false when that failed for reasons that are
 * not the file's: a full disk must not keep anybody from routing.
 */
static td_status
make_copy(const char *family, const char *name, int fd, size_t size, TdMapping *map,
		  td_encoder *view, bool *made)
{
	char partial[MAXPGPATH];
	char final[MAXPGPATH];
	td_status status = TD_ERR_TRUNCATED;
	size_t done;
	int copy;

	*made = false;
	snprintf(partial, sizeof(partial), FOLDER "/" PREFIX "%d", MyProcPid);
	snprintf(final, sizeof(final), FOLDER "/%s", name);
	(void) MakePGDirectory(FOLDER);
	(void) unlink(partial);
	copy = OpenTransientFile(partial, O_RDWR | O_CREAT | O_EXCL | PG_BINARY);
	if (copy < 0)
		return status;
	if (copy_content(fd, copy, size, &done) && done < size)
		*made = true; /* or would have been, from a whole file */
	else if (done == size && map_fd(copy, size, map))
	{
		status = check_all(map, view);
		*made = status != TD_OK || rename(partial, final) == 0;
		if (status != TD_OK || !*made)
			tdpg_encoder_unmap(map);
	}
	CloseTransientFile(copy);
	if (status != TD_OK || !*made)
		(void) unlink(partial);
	else
		remove_others(family, name);
	return status;
}

bool
tdpg_encoder_map(const char *path, int fd, const struct stat *st, TdMapping *map,
				 td_encoder *view, td_status *status)
{
	char family[MAXPGPATH];
	char name[MAXPGPATH];
	char copy[MAXPGPATH];
	bool made;

	copy_name(path, st, family, name);
	snprintf(copy, sizeof(copy), FOLDER "/%s", name);
	*status = map_copy(copy, st->st_size, map, view);
	if (*status == TD_OK)
		return true;
	*status = make_copy(family, name, fd, st->st_size, map, view, &made);
	if (made)
		return true;
	if (!map_fd(fd, st->st_size, map))
		return false;
	*status = check_all(map, view);
	if (*status != TD_OK)
		tdpg_encoder_unmap(map);
	return true;
}
