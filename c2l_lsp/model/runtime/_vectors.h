/* Vectors of LANES 32-bit numbers. _kernel.c includes this file once per register width. */

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint32_t uints __attribute__((vector_size(4 * LANES), aligned(4)));

typedef int16_t shorts __attribute__((vector_size(2 * LANES), aligned(2)));

/* Keeps a vector in a register. Without it, the compiler loads a vector that is used twice from memory twice. */
#if LANES == 8
#define KEEP_IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define KEEP_IN_REGISTER(v) (void)(v)
#endif

/* 2 · LANES integers: int16 where the processor multiplies and adds pairs of them, else int32. */
#if LANES == 8
typedef __m256i WideInts;
INLINE WideInts widen(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)w)); }
INLINE WideInts load_wide(const int16_t *x) { return _mm256_loadu_si256((const void *)x); }

/* Elementwise products; each lane holds the sum of two. */
INLINE ints multiply_add(WideInts w, WideInts x) { return (ints)_mm256_madd_epi16(w, x); }
#else
typedef struct { ints low, high; } WideInts;
INLINE WideInts widen(const int8_t *w) {
    return (WideInts){__builtin_convertvector(*(const bytes *)w, ints),
                      __builtin_convertvector(*(const bytes *)(w + LANES), ints)};
}
INLINE WideInts load_wide(const int16_t *x) {
    return (WideInts){__builtin_convertvector(*(const shorts *)x, ints),
                      __builtin_convertvector(*(const shorts *)(x + LANES), ints)};
}
INLINE ints multiply_add(WideInts w, WideInts x) { return w.low * x.low + w.high * x.high; }
#endif

typedef float quad __attribute__((vector_size(16), aligned(4)));

INLINE float horizontal_sum(floats v) {
    quad parts[LANES / 4], sum;
    memcpy(parts, &v, sizeof parts);
#if LANES == 8
    sum = parts[0] + parts[1];
#else
    sum = parts[0];
#endif
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* sums[i] = sum of the lanes of vectors[i], 0 ≤ i < ACCUMULATORS. */
INLINE void horizontal_sums(const floats *vectors, float *sums) {
#if LANES == 8
    __m256 v[ACCUMULATORS];
    for (int i = 0; i < ACCUMULATORS; i++) v[i] = (__m256)vectors[i];
    for (int i = 0; i < 4; i++) v[i] = _mm256_hadd_ps(v[2 * i], v[2 * i + 1]);
    for (int i = 0; i < 2; i++) v[i] = _mm256_hadd_ps(v[2 * i], v[2 * i + 1]); /* per 128-bit half */
    _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_permute2f128_ps(v[0], v[1], 0x20), _mm256_permute2f128_ps(v[0], v[1], 0x31)));
#else
    for (int i = 0; i < ACCUMULATORS; i++) sums[i] = horizontal_sum(vectors[i]);
#endif
}

/* As `horizontal_sums`, of integers. They are added as floats: the sum of all lanes may exceed 32 bits. */
INLINE void horizontal_sums_of_ints(const ints *vectors, float *sums) {
    floats v[ACCUMULATORS];
    for (int i = 0; i < ACCUMULATORS; i++) v[i] = __builtin_convertvector(vectors[i], floats);
    horizontal_sums(v, sums);
}

/* The greater lane of a and b; the lane of b where one of them is NaN. */
INLINE floats max_lanes(floats a, floats b) {
    ints more = a > b;
    return (floats)(((ints)a & more) | ((ints)b & ~more));
}

/* The maximum of n numbers; n is a positive multiple of LANES. */
INLINE float max_of(const float *x, int64_t n) {
    floats lanes = *(const floats *)x;
    for (int64_t i = LANES; i < n; i += LANES) lanes = max_lanes(*(const floats *)(x + i), lanes);
    float most = lanes[0];
    for (int j = 1; j < LANES; j++) most = lanes[j] > most ? lanes[j] : most;
    return most;
}

/* The nearest integers to x; ties round away from 0. */
INLINE ints round_to_int(floats x) {
    return __builtin_convertvector(x + (floats)(((ints)x & (int32_t)0x80000000) | 0x3f000000), ints);
}

/* e^x with relative error 2e-7; x is clamped to ±87. Computed as 2^n times a polynomial on ±ln 2 / 2. NaN stays NaN. */
INLINE floats exp_lanes(floats x) {
    const floats most = (floats){0} + 87.0f;
    ints low = x < -most, high = x > most;
    x = (floats)(((ints)x & ~(low | high)) | (low & (ints)-most) | (high & (ints)most));
    ints n = round_to_int(x * 1.44269504f);
    floats rounded = __builtin_convertvector(n, floats);
    floats r = x - rounded * 0.693359375f + rounded * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (floats)((n + 127) << 23);
}
