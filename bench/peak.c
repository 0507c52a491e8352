/*
 * peak.c - how many multiply-adds this machine does: in registers, none waiting for another.
 *
 * Returns how many were done.  Compiled by bench/machine.py for the very processor
 * (-march=native) and called through ctypes.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#define IN_REGISTER "x"
#else
#define IN_REGISTER "w"
#endif

/* More than the latency of one times how many begin in a cycle. */
#define APART 12

typedef float floats __attribute__((vector_size(BYTES)));
typedef int32_t ints __attribute__((vector_size(BYTES)));

uint64_t
peak_f32(size_t times)
{
	floats sum[APART] = {{0}};
	floats a = {0};
	floats b = {0};

	for (size_t t = 0; t < times; t++)
	{
#pragma GCC unroll 12
		for (int i = 0; i < APART; i++)
		{
			/* What the compiler does not know, it cannot take out of the loop. */
			__asm__ volatile("" : "+" IN_REGISTER(a));
			sum[i] += a * b;
		}
	}
#pragma GCC unroll 12
	for (int i = 0; i < APART; i++)
		__asm__ volatile("" : : IN_REGISTER(sum[i]));
	return (uint64_t) times * APART * (BYTES / sizeof(float));
}

/* Products of bytes, summed four by four into 32 bits, with the best instruction there is for it. */
#if defined(__AVX512VNNI__)
#define PRODUCTS (APART * BYTES)
#define ADD(sum, a, b) ((ints) _mm512_dpbusd_epi32((__m512i) (sum), (__m512i) (a), (__m512i) (b)))
#elif defined(__AVX2__)
#define PRODUCTS (APART * BYTES)
#define ADD(sum, a, b)                                                                             \
	((sum) + (ints) _mm256_madd_epi16(_mm256_maddubs_epi16((__m256i) (a), (__m256i) (b)),          \
									  _mm256_set1_epi16(1)))
#else
#define PRODUCTS (APART * BYTES / sizeof(int32_t))
#define ADD(sum, a, b) ((sum) + (a) * (b))
#endif

uint64_t
peak_i8(size_t times)
{
	ints sum[APART] = {{0}};
	ints a = {0};
	ints b = {0};

	for (size_t t = 0; t < times; t++)
	{
#pragma GCC unroll 12
		for (int i = 0; i < APART; i++)
		{
			__asm__ volatile("" : "+" IN_REGISTER(a));
			sum[i] = ADD(sum[i], a, b);
		}
	}
#pragma GCC unroll 12
	for (int i = 0; i < APART; i++)
		__asm__ volatile("" : : IN_REGISTER(sum[i]));
	return (uint64_t) times * PRODUCTS;
}
