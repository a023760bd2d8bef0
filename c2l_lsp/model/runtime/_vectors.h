/* Vectors of LANES numbers; included by _kernel.c once for every width of registers. */

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4)));

typedef int16_t shorts __attribute__((vector_size(2 * LANES), aligned(2)));

/* Keeps a vector in a register: what is used twice would else be read from memory twice, and reading is what takes longest. */
#if LANES == 8
#define HELD(v) __asm__("" : "+x"(v))
#else
#define HELD(v) (void)(v)
#endif

/* Twice as many whole numbers as there are lanes, in 16 bits where the processor multiplies such, else in 32. */
#if LANES == 8
typedef __m256i Pair;
INLINE Pair widened(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)w)); }
INLINE Pair given(const int16_t *x) { return _mm256_loadu_si256((const void *)x); }

/* Products; each lane has the sum of two. */
INLINE ints paired(Pair w, Pair x) { return (ints)_mm256_madd_epi16(w, x); }
#else
typedef struct { ints low, high; } Pair;
INLINE Pair widened(const int8_t *w) {
    return (Pair){__builtin_convertvector(*(const bytes *)w, ints), __builtin_convertvector(*(const bytes *)(w + LANES), ints)};
}
INLINE Pair given(const int16_t *x) {
    return (Pair){__builtin_convertvector(*(const shorts *)x, ints), __builtin_convertvector(*(const shorts *)(x + LANES), ints)};
}
INLINE ints paired(Pair w, Pair x) { return w.low * x.low + w.high * x.high; }
#endif

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

/* The sums of CHAINS vectors. */
INLINE void totals(const floats *all, float *sums) {
#if LANES == 8
    __m256 v[CHAINS];
    for (int i = 0; i < CHAINS; i++) v[i] = (__m256)all[i];
    for (int i = 0; i < 4; i++) v[i] = _mm256_hadd_ps(v[2 * i], v[2 * i + 1]);
    for (int i = 0; i < 2; i++) v[i] = _mm256_hadd_ps(v[2 * i], v[2 * i + 1]); /* lower halves' and upper halves' */
    _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_permute2f128_ps(v[0], v[1], 0x20), _mm256_permute2f128_ps(v[0], v[1], 0x31)));
#else
    for (int i = 0; i < CHAINS; i++) sums[i] = total(all[i]);
#endif
}

/* The sums of CHAINS vectors of whole numbers; those of a lane would not fit one whole number together. */
INLINE void whole_totals(const ints *all, float *sums) {
    floats v[CHAINS];
    for (int i = 0; i < CHAINS; i++) v[i] = __builtin_convertvector(all[i], floats);
    totals(v, sums);
}

/* The greater of each pair; the second where one is no number. */
INLINE floats greater(floats a, floats b) {
    ints more = a > b;
    return (floats)(((ints)a & more) | ((ints)b & ~more));
}

/* The highest of n numbers, n a multiple of LANES and not 0. */
INLINE float highest(const float *x, int64_t n) {
    floats all = *(const floats *)x;
    for (int64_t i = LANES; i < n; i += LANES) all = greater(*(const floats *)(x + i), all);
    float most = all[0];
    for (int j = 1; j < LANES; j++) most = all[j] > most ? all[j] : most;
    return most;
}

/* The whole numbers next to x, away from 0 in the middle. */
INLINE ints nearest(floats x) {
    return __builtin_convertvector(x + (floats)(((ints)x & (int32_t)0x80000000) | 0x3f000000), ints);
}

/* e^x to a relative error of 2e-7, within ±87: 2^n times a polynomial on ±ln 2 / 2. What is no number stays none. */
INLINE floats exponential(floats x) {
    const floats most = (floats){0} + 87.0f;
    ints low = x < -most, high = x > most;
    x = (floats)(((ints)x & ~(low | high)) | (low & (ints)-most) | (high & (ints)most));
    ints n = nearest(x * 1.44269504f);
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
