/*
 * driver.c - runs a fuzz target without a fuzzing engine.
 *
 * In:  corpus files and directories named on the command line.  Out: one LLVMFuzzerTestOneInput()
 *      call for each file, then for seeded mutations of them; a summary on stdout; on a crash the
 *      input in the file crash-<seed>-<run>.
 * Linked with any fuzz_*.c where clang's libFuzzer is absent, usually under gcc's
 * -fsanitize=address,undefined; takes libFuzzer's names for its flags:
 *
 *   -runs=N            mutated inputs to run (default 100000; 0: only replay the corpus)
 *   -max_total_time=N  stop after N seconds even if fewer have run (default 0: no limit)
 *   -seed=N            of the mutations (default 1): same seed and corpus, same inputs
 *   -max_len=N         bytes of the longest mutated input (default 4096)
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_MUTATIONS 8 /* applied one after the other to one input */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* There when a sanitizer is linked in. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

typedef struct input
{
	char *path;
	uint8_t *data;
	size_t size;
} input;

static input *corpus;
static size_t n_corpus;

/* What is running, for the crash file. */
static const uint8_t *current;
static size_t current_size;
static uint64_t current_run;
static uint64_t seed = 1;

static uint64_t state;

/* SplitMix64: Steele, Lea and Flood 2014. */
static uint64_t
next_random(void)
{
	uint64_t z = (state += 0x9E3779B97F4A7C15u);

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

/* Uniform enough in [0, n); 0 for n = 0. */
static size_t
below(size_t n)
{
	return n == 0 ? 0 : (size_t) (next_random() % n);
}

static void
fail(const char *what, const char *path)
{
	fprintf(stderr, "could not %s \"%s\": %s\n", what, path, strerror(errno));
	exit(2);
}

static void *
allocate(size_t size)
{
	void *memory = malloc(size > 0 ? size : 1);

	if (memory == NULL)
	{
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	return memory;
}

static void
save_crash(void)
{
	char name[64];
	FILE *file;

	snprintf(name, sizeof name, "crash-%" PRIu64 "-%" PRIu64, seed, current_run);
	file = fopen(name, "wb");
	if (file == NULL)
		return;
	fwrite(current, 1, current_size, file);
	fclose(file);
	fprintf(stderr, "seed %" PRIu64 ", run %" PRIu64 ": input saved in %s\n", seed, current_run,
			name);
}

static void
on_signal(int number)
{
	save_crash();
	signal(number, SIG_DFL);
	raise(number);
}

/* Run one input from a heap copy of its exact size, so that a sanitizer sees every overread. */
static void
run(const uint8_t *data, size_t size)
{
	uint8_t *copy = allocate(size);

	if (size > 0)
		memcpy(copy, data, size);
	current = copy;
	current_size = size;
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static int
by_path(const void *a, const void *b)
{
	return strcmp(((const input *) a)->path, ((const input *) b)->path);
}

/* Read a file, or every file below a directory, into the corpus. */
static void
load(const char *path)
{
	struct stat status;
	DIR *directory;

	if (stat(path, &status) != 0)
		fail("find", path);
	if (!S_ISDIR(status.st_mode))
	{
		input *grown = realloc(corpus, (n_corpus + 1) * sizeof *corpus);
		FILE *file = fopen(path, "rb");
		input *one;

		if (grown == NULL || file == NULL)
			fail("read", path);
		corpus = grown;
		one = &corpus[n_corpus++];
		one->path = strdup(path);
		one->size = (size_t) status.st_size;
		one->data = allocate(one->size);
		if (one->path == NULL || fread(one->data, 1, one->size, file) != one->size)
			fail("read", path);
		fclose(file);
		return;
	}
	directory = opendir(path);
	if (directory == NULL)
		fail("read", path);
	for (;;)
	{
		struct dirent *entry = readdir(directory);
		size_t size;
		char *child;

		if (entry == NULL)
			break;
		if (entry->d_name[0] == '.')
			continue;
		size = strlen(path) + strlen(entry->d_name) + 2;
		child = allocate(size);
		snprintf(child, size, "%s/%s", path, entry->d_name);
		load(child);
		free(child);
	}
	closedir(directory);
}

/* Replace removed bytes at position at by added[n_added], as far as max_size allows. */
static size_t
replace(uint8_t *data, size_t size, size_t max_size, size_t at, size_t removed,
		const uint8_t *added, size_t n_added)
{
	if (n_added > max_size - (size - removed))
		n_added = max_size - (size - removed);
	memmove(data + at + n_added, data + at + removed, size - at - removed);
	if (n_added > 0)
		memcpy(data + at, added, n_added);
	return size - removed + n_added;
}

/* Change data[size] in one random way; returns its new size, at most max_size. */
static size_t
mutate(uint8_t *data, size_t size, size_t max_size, uint8_t *scratch)
{
	static const uint64_t edges[] = {0,			 1,			 0x7F,		  0x80,
									 0xFF,		 0x7FFF,	 0x8000,	  0xFFFF,
									 0x10000,	 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu,
									 0x7FC00000, 0x7F800000, INT64_MAX,	  UINT64_MAX};
	size_t at = below(size + 1);
	size_t rest = size - at;

	switch (below(9))
	{
		case 0: /* flip a bit */
			if (rest > 0)
				data[at] ^= (uint8_t) (1u << below(8));
			return size;
		case 1: /* any byte */
			if (rest > 0)
				data[at] = (uint8_t) next_random();
			return size;
		case 2: /* a little-endian number at an edge, or next to one */
		{
			uint64_t value = edges[below(sizeof edges / sizeof *edges)] + below(3) - 1;
			size_t width = (size_t) 1 << below(4);

			memcpy(scratch, &value, sizeof value);
			return replace(data, size, max_size, at, width < rest ? width : rest, scratch, width);
		}
		case 3: /* remove a range */
			return replace(data, size, max_size, at, below(rest + 1), NULL, 0);
		case 4: /* repeat a range */
		{
			size_t n = below(rest < 256 ? rest + 1 : 257);

			memcpy(scratch, data + at, n);
			return replace(data, size, max_size, below(size + 1), 0, scratch, n);
		}
		case 5: /* insert one byte many times */
		{
			size_t n = below(256);

			memset(scratch, (int) below(256), n);
			return replace(data, size, max_size, at, 0, scratch, n);
		}
		case 6: /* insert a code point as UTF-8, short ones as often as long ones */
		{
			static const uint32_t limit[] = {0x80, 0x800, 0x10000, 0x110000};
			uint32_t c = (uint32_t) below(limit[below(4)]);
			size_t n = 1;

			if (c < 0x80)
				scratch[0] = (uint8_t) c;
			else
			{
				n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
				for (size_t i = n - 1; i > 0; i--, c >>= 6)
					scratch[i] = (uint8_t) (0x80 | (c & 0x3F));
				scratch[0] = (uint8_t) ((0xF00 >> n) | c);
			}
			return replace(data, size, max_size, at, 0, scratch, n);
		}
		case 7: /* overwrite with a range of another input */
		case 8: /* insert a range of another input */
		default:
		{
			const input *other = &corpus[below(n_corpus)];
			size_t from = below(other->size);
			size_t n = below(other->size - from + 1);
			size_t removed = below(2) ? (n < rest ? n : rest) : 0;

			return replace(data, size, max_size, at, removed, other->data + from, n);
		}
	}
}

int
main(int argc, char **argv)
{
	uint64_t runs = 100000;
	uint64_t seconds = 0;
	uint64_t max_size = 4096;
	time_t start = time(NULL);
	uint8_t *data;
	uint8_t *scratch;

	for (int i = 1; i < argc; i++)
	{
		uint64_t value = 0;
		char rest = 0;

		if (argv[i][0] != '-')
			load(argv[i]);
		else if (sscanf(argv[i], "-runs=%" SCNu64 "%c", &value, &rest) == 1)
			runs = value;
		else if (sscanf(argv[i], "-max_total_time=%" SCNu64 "%c", &value, &rest) == 1)
			seconds = value;
		else if (sscanf(argv[i], "-seed=%" SCNu64 "%c", &value, &rest) == 1)
			seed = value;
		else if (sscanf(argv[i], "-max_len=%" SCNu64 "%c", &value, &rest) == 1)
			max_size = value;
		else
		{
			fprintf(stderr, "unknown argument \"%s\"\n", argv[i]);
			return 2;
		}
	}
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_crash);
	signal(SIGABRT, on_signal);

	/* Directory order differs between file systems; the order of mutations must not. */
	if (n_corpus > 0)
		qsort(corpus, n_corpus, sizeof *corpus, by_path);
	for (size_t i = 0; i < n_corpus; i++)
		run(corpus[i].data, corpus[i].size);
	printf("replayed %zu files\n", n_corpus);
	if (n_corpus == 0)
	{
		corpus = allocate(sizeof *corpus);
		corpus[n_corpus++] = (input){NULL, allocate(0), 0};
	}

	state = seed;
	data = allocate(max_size);
	scratch = allocate(256);
	for (current_run = 1; current_run <= runs; current_run++)
	{
		const input *origin = &corpus[below(n_corpus)];
		size_t size = origin->size < max_size ? origin->size : max_size;

		if (size > 0)
			memcpy(data, origin->data, size);
		for (size_t n = 1 + below(MAX_MUTATIONS); n > 0; n--)
			size = mutate(data, size, max_size, scratch);
		run(data, size);
		if (seconds > 0 && (uint64_t) (time(NULL) - start) >= seconds)
		{
			current_run++;
			break;
		}
	}
	printf("ran %" PRIu64 " mutations, seed %" PRIu64 ", %ld s\n", current_run - 1, seed,
		   (long) (time(NULL) - start));

	for (size_t i = 0; i < n_corpus; i++)
	{
		free(corpus[i].path);
		free(corpus[i].data);
	}
	free(corpus);
	free(data);
	free(scratch);
	return 0;
}
