/*
 * floor.c - what the kernel is measured against: the speed of reading, and loops as one writes them.
 *
 * Arrays in, sums out.  Compiled by bench/kernels.py with -O2 and called through ctypes, so that no
 * size is known to the compiler.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t lanes __attribute__((vector_size(64), aligned(1), may_alias));

/* Read size bytes, a multiple of 256, so many times, in the widest registers there are. */
__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t
floor_read(const uint8_t *bytes, size_t size, size_t times)
{
	uint64_t all = 0;

	while (times-- > 0)
	{
		lanes a = {0}, b = {0}, c = {0}, d = {0};

		for (size_t i = 0; i + 256 <= size; i += 256)
		{
			a ^= *(const lanes *) (bytes + i);
			b ^= *(const lanes *) (bytes + i + 64);
			c ^= *(const lanes *) (bytes + i + 128);
			d ^= *(const lanes *) (bytes + i + 192);
		}
		a ^= b ^ c ^ d;
		all += a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
		/* Without it, reading twice would be reading once. */
		__asm__ volatile("" : : : "memory");
	}
	return all;
}

/* One FastGRNN step from a zero state for n rows x[n][n_in], untied, as the formula says. */
void
naive_fastgrnn_f32(const float *w, const float *w_h, const float *b_z, const float *b_h, float zeta,
				   float nu, const float *x, size_t n, size_t n_in, size_t n_hidden, float *h)
{
	for (; n-- > 0; x += n_in, h += n_hidden)
		for (size_t i = 0; i < n_hidden; i++)
		{
			float z = b_z[i];
			float c = b_h[i];

			for (size_t k = 0; k < n_in; k++)
				z += w[i * n_in + k] * x[k];
			for (size_t k = 0; k < n_in; k++)
				c += w_h[i * n_in + k] * x[k];
			z = 1.0f / (1.0f + expf(-z));
			h[i] = (zeta * (1.0f - z) + nu) * tanhf(c);
		}
}

/* The same with int8 weights, a scale per row, and inputs that are quantised. */
void
naive_fastgrnn_i8(const int8_t *w, const float *w_scale, const int8_t *w_h, const float *w_h_scale,
				  const float *b_z, const float *b_h, float zeta, float nu, const float *x, size_t n,
				  size_t n_in, size_t n_hidden, int8_t *q, float *h)
{
	for (; n-- > 0; x += n_in, h += n_hidden)
	{
		float greatest = 0.0f;

		for (size_t k = 0; k < n_in; k++)
			greatest = fabsf(x[k]) > greatest ? fabsf(x[k]) : greatest;
		for (size_t k = 0; k < n_in; k++)
			q[k] = (int8_t) rintf(x[k] / (greatest / 127.0f));
		for (size_t i = 0; i < n_hidden; i++)
		{
			int32_t z_sum = 0;
			int32_t c_sum = 0;
			float z;

			for (size_t k = 0; k < n_in; k++)
				z_sum += w[i * n_in + k] * q[k];
			for (size_t k = 0; k < n_in; k++)
				c_sum += w_h[i * n_in + k] * q[k];
			z = 1.0f / (1.0f + expf(-(z_sum * w_scale[i] * (greatest / 127.0f) + b_z[i])));
			h[i] = (zeta * (1.0f - z) + nu) *
				   tanhf(c_sum * w_h_scale[i] * (greatest / 127.0f) + b_h[i]);
		}
	}
}
