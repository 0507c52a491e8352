/*
 * td_embedder.c - the road from a text to its vector that everything in the module takes.
 *
 * In: UTF-8 texts and a pinned encoder.  Out: unit vectors.  Called by td_route.c for requests, by
 * td_registry_build.c for phrases and by td_sql_embed.c for both.
 *
 * The kernel cannot be interrupted, so it is given little at a time: an encoder of many layers
 * works in steps, and what lies behind the first part of a huge text, of which only the word pieces
 * are counted, is read in parts.
 */
#include "postgres.h"

#include <sys/mman.h>
#include <unistd.h>

#include "miscadmin.h"
#include "utils/memutils.h"

#include "td_compat.h"
#include "td_activity.h"
#include "td_embedder.h"

/* Widest vector register, and a cache line. */
#define SCRATCH_ALIGNMENT 64

/*
 * What is larger grows in steps, so that a join over texts of rising length does not allocate for each
 * of them, and is given back; the few bytes of a static encoder are not worth a call of the system.
 */
#define SCRATCH_STEP ((size_t) 64 * 1024)

/*
 * Bytes that are split into word pieces between two looks at interrupts, some 5 ms; more than
 * TD_MAX_TOKENS words of ordinary length.
 */
#define PART_SIZE (256 * 1024)

/* Bytes of the longest text that is embedded together with others; up to 64 are split at once. */
#define TOGETHER_SIZE 4096

struct TdEmbedder
{
	MemoryContext context; /* holds the scratch alone */
	void *scratch;
	size_t size;
};

/* A piece of memory that was lent to the kernel. */
typedef struct Scratch
{
	MemoryContextCallback callback;
	char *bytes;
	size_t size;
} Scratch;

/*
 * The allocator may keep what is freed for the next time, and a session's next time may be
 * tomorrow: whole pages go back to the operating system before the block is freed.
 */
static void
give_back(void *arg)
{
	Scratch *scratch = arg;
	uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
	uintptr_t from = TYPEALIGN(page, (uintptr_t) scratch->bytes);
	uintptr_t to = TYPEALIGN_DOWN(page, (uintptr_t) scratch->bytes + scratch->size);

	if (to > from)
		(void) madvise((void *) from, to - from, MADV_DONTNEED);
}

TdEmbedder *
tdpg_embedder_create(MemoryContext context)
{
	TdEmbedder *embedder = MemoryContextAllocZero(context, sizeof(TdEmbedder));

	embedder->context =
		AllocSetContextCreate(context, "tinydancer scratch", ALLOCSET_START_SMALL_SIZES);
	return embedder;
}

static void
ensure_scratch(TdEmbedder *embedder, size_t size)
{
	Scratch *scratch;

	if (size <= embedder->size)
		return;
	if (size > SCRATCH_STEP)
		size = (size + SCRATCH_STEP - 1) / SCRATCH_STEP * SCRATCH_STEP;
	embedder->size = 0;
	MemoryContextReset(embedder->context);
	scratch = MemoryContextAlloc(embedder->context, sizeof(Scratch));
	scratch->size = size + SCRATCH_ALIGNMENT;
	scratch->bytes = MemoryContextAllocHuge(embedder->context, scratch->size);
	scratch->callback.func = give_back;
	scratch->callback.arg = scratch;
	if (size > SCRATCH_STEP)
		MemoryContextRegisterResetCallback(embedder->context, &scratch->callback);
	embedder->scratch = (void *) TYPEALIGN(SCRATCH_ALIGNMENT, scratch->bytes);
	embedder->size = size;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/*
 * Where to cut a text after about PART_SIZE bytes: at white space of ASCII, since no word piece and
 * no rule of the tokenizer reaches across it.  The whole length when there is none.
 */
static size_t
part_of(TdText text)
{
	size_t at;

	if (text.len <= PART_SIZE)
		return text.len;
	for (at = PART_SIZE; at > PART_SIZE / 2; at--)
	{
		if (is_blank(text.data[at]))
			return at;
	}
	for (at = PART_SIZE; at < text.len; at++)
	{
		if (is_blank(text.data[at]))
			return at;
	}
	return text.len;
}

td_status
tdpg_count_pieces(const td_encoder *encoder, TdText text, size_t *n_pieces)
{
	*n_pieces = 0;
	while (text.len > 0)
	{
		td_token_count count;
		size_t part = part_of(text);
		td_status status =
			td_text_tokenize(&encoder->vocab, text.data, part, NULL, 0, &count);

		if (status != TD_OK)
			return status;
		CHECK_FOR_INTERRUPTS();
		*n_pieces += count.n_total;
		text.data += part;
		text.len -= part;
	}
	return TD_OK;
}

/* Run a job to its end. */
static void
finish(td_embed_job *job, float *out)
{
	do
	{
		CHECK_FOR_INTERRUPTS();
	} while (td_embed_step(job));
	td_embed_end(job, out);
	tdpg_activity.texts_embedded += job->n_texts;
}

/* One text, whole. */
static td_status
embed_whole(TdEmbedder *embedder, const td_encoder *encoder, TdText text, float *out,
			td_embed_info *info)
{
	td_embed_job job;
	td_status status;

	ensure_scratch(embedder, td_embed_scratch_size(encoder, text.len));
	status = td_embed_begin(&job, encoder, &text.data, &text.len, 1, embedder->scratch,
							embedder->size);
	if (status != TD_OK)
		return status;
	finish(&job, out);
	*info = job.info[0];
	return job.status[0];
}

td_status
tdpg_embed(TdEmbedder *embedder, const td_encoder *encoder, TdText text, float *out,
		   td_embed_info *info)
{
	TdText part = {text.data, part_of(text)};
	size_t n_pieces;
	td_status status = embed_whole(embedder, encoder, part, out, info);

	if (part.len == text.len || (status != TD_OK && status != TD_ERR_EMPTY))
		return status;
	/* Rarely is the first part not enough: white space, or words of many thousand bytes. */
	if (status == TD_ERR_EMPTY || info->n_used < encoder->max_tokens)
		return embed_whole(embedder, encoder, text, out, info);
	text.data += part.len;
	text.len -= part.len;
	status = tdpg_count_pieces(encoder, text, &n_pieces);
	info->n_tokens += n_pieces;
	return status;
}

/* As many texts as go together from the first one on; returns their number. */
static int
embed_together(TdEmbedder *embedder, const td_encoder *encoder, const TdText *texts, int n,
			   float *out, td_embed_info *info, td_status *status)
{
	const char *data[TD_EMBED_MAX_TEXTS];
	size_t lens[TD_EMBED_MAX_TEXTS];
	td_embed_job job;
	int taken = 0;
	int i;

	while (taken < n && taken < TD_EMBED_MAX_TEXTS && texts[taken].len <= TOGETHER_SIZE)
	{
		data[taken] = texts[taken].data;
		lens[taken] = texts[taken].len;
		taken++;
	}
	ensure_scratch(embedder, td_embed_scratch_size(encoder, SIZE_MAX));
	*status = td_embed_begin(&job, encoder, data, lens, taken, embedder->scratch, embedder->size);
	if (*status == TD_ERR_BUFFER)
		elog(ERROR, "scratch of %zu bytes is too small", embedder->size);
	finish(&job, out);
	for (i = 0; i < (int) job.n_texts; i++)
	{
		status[i] = job.status[i];
		if (info != NULL)
			info[i] = job.info[i];
	}
	return (int) job.n_texts;
}

void
tdpg_embed_many(TdEmbedder *embedder, const td_encoder *encoder, const TdText *texts, int n,
				float *out, td_embed_info *info, td_status *status)
{
	int i = 0;

	while (i < n)
	{
		float *vectors = out + (size_t) i * encoder->dim;

		if (texts[i].len <= TOGETHER_SIZE)
			i += embed_together(embedder, encoder, texts + i, n - i, vectors,
								info != NULL ? info + i : NULL, status + i);
		else
		{
			td_embed_info read;

			status[i] = tdpg_embed(embedder, encoder, texts[i], vectors, &read);
			if (info != NULL)
				info[i] = read;
			if (status[i] != TD_OK)
				memset(vectors, 0, sizeof(float) * encoder->dim);
			i++;
		}
	}
}
