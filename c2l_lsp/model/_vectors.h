/* Vectors of LANES numbers; included by _kernel.c once for every width of registers. */

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE floats widened(const int8_t *w) {
#if LANES == 8
    ints wide = (ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)w));
#else
    ints wide = __builtin_convertvector(*(const bytes *)w, ints);
#endif
    return __builtin_convertvector(wide, floats);
}

typedef float quad __attribute__((vector_size(16), aligned(4)));

INLINE float total(floats v) {
    quad parts[LANES / 4], sum;
    memcpy(parts, &v, sizeof parts);
#if LANES == 8
    sum = parts[0] + parts[1];
#else
    sum = parts[0];
#endif
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* e^x to a relative error of 2e-7, within ±87: 2^n times a polynomial on ±ln 2 / 2. What is no number stays none. */
INLINE floats exponential(floats x) {
    const floats most = (floats){0} + 87.0f;
    ints low = x < -most, high = x > most;
    x = (floats)(((ints)x & ~(low | high)) | (low & (ints)-most) | (high & (ints)most));
    floats scaled = x * 1.44269504f;
    ints n = __builtin_convertvector(scaled + (floats)(((ints)scaled & (int32_t)0x80000000) | 0x3f000000), ints);
    floats whole = __builtin_convertvector(n, floats);
    floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (floats)((n + 127) << 23);
}
