/* Inference on the CPU for Llama-shaped models with int8 weights, and kNN-LM look-up.
 *
 * A decode step of a small model costs less in arithmetic than in the dispatch of some hundred operations; here it is one
 * call. Weights are int8 with one scale per row. Their inputs are quantised to 16 bits with one scale per row, so that the
 * integer sums are exact. All other arithmetic is fp32; the KV cache holds fp32, bf16 or fp16. A row has the same bits
 * however many rows are computed at once: a checked draft equals single steps, and a prompt read at once equals a prompt
 * read token by token. Large jobs run on a small thread pool (_pool.h) with the same bits as on one thread.
 *
 * The code is plain C with the vector extensions of GCC and Clang, compiled once per register width (_vectors.h, _step.h,
 * _knn.h). kernel.py and kernel_layers.py pass addresses and check shapes, types and lifetimes; this file checks widths and counts only:
 * with a width that is no multiple of PANEL_COLUMNS the loops would run past the end of a row.
 */
#define _GNU_SOURCE /* sched_getcpu */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "_pool.h"

#if !defined(__GNUC__)
#error "needs the vector extensions of GCC or Clang; without this module PyTorch's kernels are used"
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define NOINLINE static __attribute__((noinline))
#else
#define NOINLINE static __attribute__((noinline, noclone))
#endif
enum {
    KV_BLOCK = 64,           /* positions whose keys stay in the L1 cache until every head has used them */
    MAX_KEY_WIDTH = 512,     /* numbers of a kNN key; as in kernel.py */
    ACCUMULATORS = 8,        /* independent sums: enough to hide the latency of an addition */
    PANEL_ROWS = 8,          /* weight rows that are interleaved, */
    PANEL_COLUMNS = 16,      /* and how many numbers of each in turn; both as in kernel.py */
    ROW_GROUP = 4,           /* input rows that are interleaved likewise */
    PREFETCH_BYTES = 4096,   /* distance by which weights are prefetched */
    PART_BYTES = 32768,      /* weights in one part of a parallel product */
    PARALLEL_FROM = 256,     /* positions above which attention runs in parallel */
    MAX_HEAD_DIM = 256,      /* head size up to which a tile converts keys and values to fp32 once */
    QUERY_TILE = 8,          /* rows that attend together; as in kernel_layers.py */
    PREFETCH_POSITIONS = 16, /* distance by which keys and values are prefetched */
};

/* W ≈ scale · weight, with an optional LoRA term: y = x Wᵀ + bias + B (A x). A and B are quantised as W is. */
typedef struct {
    const int8_t *weight; /* [⌈out / PANEL_ROWS⌉, in / PANEL_COLUMNS, PANEL_ROWS, PANEL_COLUMNS], zero rows at the end */
    const float *scale;   /* [out] */
    const float *bias;    /* [out] or NULL */
    const int8_t *lora_a; /* [rank, in] */
    const float *lora_a_scale;
    const int8_t *lora_b; /* [out, rank] */
    const float *lora_b_scale;
    int64_t rank; /* 0: no LoRA term */
} Matrix;

typedef struct {
    int64_t width, heads, kv_heads, head_dim, inner, layers;
    int64_t embedding_type, kv_type; /* BF16, FP32 or FP16 */
    int64_t rank;                    /* the highest LoRA rank of any matrix */
    double eps;                      /* of the RMS norms */
} ModelShape;

typedef struct {
    const float *attention_norm;
    Matrix qkv, output;
    const float *mlp_norm;
    Matrix gate_up, down;
} Layer;

enum { BF16, FP32, FP16 }; /* as in kernel_layers.py */

/* Keys, then values, of every position: [layers, capacity, 2 · kv_heads · head_dim]. */
typedef struct {
    void *kv;
    int64_t capacity;
} KVCache;

/* Keys and values of one head. Row i, of position first + i, is at kv + i · stride numbers; its key and value begin `key`
 * and `value` numbers later and have `width` numbers each. */
typedef struct {
    const void *kv;
    int64_t stride, key, value, width, first;
} HeadView;

typedef struct {
    const int8_t *weight; /* this, `scale` and `bias` as in Matrix */
    const float *scale, *bias;
    int64_t in, out, rows, panels_per_part;
    const int16_t *numbers; /* the quantised input, and its scales */
    const float *scales;
    float *y;
    int accumulate; /* add to y instead of overwriting it */
} MatmulTask;

typedef struct {
    const ModelShape *shape;
    const void *kv;
    const float *projected; /* [rows, (heads + 2 · kv_heads) · head_dim] */
    float *out, *scores;    /* out [rows, heads · head_dim] */
    int64_t start, rows, capacity, scores_per_thread;
} AttentionTask;

enum { MAX_MATCH = 8, NEIGHBOURS = 32, MAX_CANDIDATES = 4096 }; /* as in knn_lm.py */

#include "_suffix.h"

/* The numbers of a mixture gate, as in mixture.py: those of the scores, W [HIDDEN, FEATURES], c [HIDDEN], V [2, HIDDEN], b
 * [2]; then the strength. */
enum { LENGTH_WEIGHT, LONG_WEIGHT, LONGEST_BONUS, AGREEMENT, TEMPERATURE, KEY_LENGTH_WEIGHT, GATE_SCORES };
enum { FEATURES = 13, HIDDEN = 16, GATE_STRENGTH = GATE_SCORES + HIDDEN * FEATURES + HIDDEN + 2 * HIDDEN + 2 };

/* The kNN memory of a folder. `last`, `places` and `keys` describe its positions with keys, sorted by token; `tokens` and
 * `order` are its token index. */
typedef struct {
    const int32_t *ids, *last, *places; /* [all] tokens; [count] token of a position, and its index in `ids` */
    const int8_t *keys;                 /* [count, width] */
    const float *basis;                 /* [width, inner]: key = basis · hidden, normalised */
    int64_t count, width, inner, vocabulary;
    const int32_t *tokens, *order; /* [all]; [positions] */
    int64_t positions;
    const double *gate;
} Memory;

typedef struct {
    float cosine[NEIGHBOURS], run[NEIGHBOURS]; /* run: tokens that match before the position, the current one included */
    int32_t next[NEIGHBOURS];
    int64_t count, candidates; /* neighbours found; positions that were eligible */
} Neighbours;

/* A distribution of next tokens; `best` is the index of the most likely one. */
typedef struct {
    int32_t tokens[NEIGHBOURS];
    double mass[NEIGHBOURS];
    int64_t distinct, best;
} Vote;

/* Both votes together, each token with its share of the mixture. */
typedef struct {
    int32_t tokens[2 * NEIGHBOURS];
    double share[2 * NEIGHBOURS];
    int64_t distinct;
} MixedVote;

typedef void MixMemory(const Memory *, const float *, const int32_t *, float *, int64_t, const int32_t *, double *);
typedef void MultiplyMatrix(const Matrix *, int64_t, int64_t, const float *, float *, int64_t, float *, int);
typedef void ForwardStep(const ModelShape *, const Layer *, const float *, const void *, const float *, const KVCache *,
                         const int32_t *, float *, int64_t, int64_t, int64_t, float *, int);
typedef void ApplyFinalMap(const float *, const float *, float *, int64_t, int64_t);
typedef void ArgmaxRows(const float *, int64_t, int32_t *, double *, int64_t);

/* The names that the files below define get a suffix, floats_4, floats_8 …, since each file is included once per width. */
#define floats NAME(floats)
#define ints NAME(ints)
#define bytes NAME(bytes)
#define halves NAME(halves)
#define uints NAME(uints)
#define quad NAME(quad)
#define widen NAME(widen)
#define horizontal_sum NAME(horizontal_sum)
#define shorts NAME(shorts)
#define WideInts NAME(WideInts)
#define multiply_add NAME(multiply_add)
#define load_wide NAME(load_wide)
#define round_to_int NAME(round_to_int)
#define quantize_rows NAME(quantize_rows)
#define exp_lanes NAME(exp_lanes)
#define load_floats NAME(load_floats)
#define store_float NAME(store_float)
#define multiply_block NAME(multiply_block)
#define linear NAME(linear)
#define rms_norm NAME(rms_norm)
#define rotate_and_store NAME(rotate_and_store)
#define prefetch_row NAME(prefetch_row)
#define horizontal_sums NAME(horizontal_sums)
#define horizontal_sums_of_ints NAME(horizontal_sums_of_ints)
#define convert_rows NAME(convert_rows)
#define score_positions NAME(score_positions)
#define write_outputs NAME(write_outputs)
#define multiply_panels NAME(multiply_panels)
#define matmul NAME(matmul)
#define matmul_task NAME(matmul_task)
#define attention_task NAME(attention_task)
#define attention NAME(attention)
#define max_lanes NAME(max_lanes)
#define max_of NAME(max_of)
#define score_range NAME(score_range)
#define softmax NAME(softmax)
#define add_value_vectors NAME(add_value_vectors)
#define add_values NAME(add_values)
#define attend_tile NAME(attend_tile)
#define swiglu NAME(swiglu)
#define add_in_place NAME(add_in_place)
#define multiply_matrix NAME(multiply_matrix)
#define forward_step NAME(forward_step)
#define key_dot_products NAME(key_dot_products)
#define log_sum_exp NAME(log_sum_exp)
#define lower_bound NAME(lower_bound)
#define find_neighbours NAME(find_neighbours)
#define Row NAME(Row)
#define row_probability NAME(row_probability)
#define count_votes NAME(count_votes)
#define vote_of_tokens NAME(vote_of_tokens)
#define vote_of_neighbours NAME(vote_of_neighbours)
#define different_after NAME(different_after)
#define compare_with_model NAME(compare_with_model)
#define mixture_features NAME(mixture_features)
#define vote_weights NAME(vote_weights)
#define query_key NAME(query_key)
#define mixed_vote NAME(mixed_vote)
#define mix_memory NAME(mix_memory)
#define multiply_panel NAME(multiply_panel)
#define apply_final_map NAME(apply_final_map)
#define argmax_rows NAME(argmax_rows)

#define LANES 4
#define NAME(name) name##_4
#include "_vectors.h"
#include "_step.h"
#include "_knn.h"
#undef LANES
#undef KEEP_IN_REGISTER
#undef NAME

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define LANES 8
#define NAME(name) name##_8
#include "_vectors.h"
#include "_step.h"
#include "_knn.h"
#undef LANES
#undef KEEP_IN_REGISTER
#undef NAME
#pragma GCC pop_options
#endif

/* The functions of one register width. */
typedef struct {
    MultiplyMatrix *multiply;
    ForwardStep *step;
    MixMemory *memory;
    ApplyFinalMap *map;
    ArgmaxRows *argmax;
} Kernels;

static const Kernels kernels_4 = {multiply_matrix_4, forward_step_4, mix_memory_4, apply_final_map_4, argmax_rows_4};
#if defined(__x86_64__)
static const Kernels kernels_8 = {multiply_matrix_8, forward_step_8, mix_memory_8, apply_final_map_8, argmax_rows_8};
#endif
static const Kernels *kernels = &kernels_4;

/* Selects the functions for registers of `lanes` numbers. Returns 0 if this processor has no such registers. */
static int select_lanes(int lanes) {
#if defined(__x86_64__)
    if (lanes == 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        kernels = &kernels_8;
        return lanes;
    }
#endif
    if (lanes != 4) return 0;
    kernels = &kernels_4;
    return lanes;
}

static PyObject *py_select_lanes(PyObject *self, PyObject *arguments) {
    (void)self;
    int lanes;
    if (!PyArg_ParseTuple(arguments, "i", &lanes)) return NULL;
    return PyLong_FromLong(select_lanes(lanes));
}

/* Whether a row of `width` numbers consists of whole panels. */
static int fits(long long width) { return width > 0 && width <= INT32_MAX && width % PANEL_COLUMNS == 0; }

/* The one check of every entry: returns 1, or 0 with a ValueError. */
static int require(int holds, const char *sentence) {
    if (!holds) PyErr_SetString(PyExc_ValueError, sentence);
    return holds;
}

static int shape_fits(const ModelShape *s) {
    return s->heads > 0 && s->kv_heads > 0 && s->heads % s->kv_heads == 0 && s->layers > 0 && s->rank >= 0 &&
           s->rank % PANEL_COLUMNS == 0 && fits(s->width) && fits(s->head_dim) && fits(s->inner) &&
           s->embedding_type >= BF16 && s->embedding_type <= FP32 && s->kv_type >= BF16 && s->kv_type <= FP16;
}

static PyObject *py_multiply(PyObject *self, PyObject *arguments) {
    (void)self;
    long long matrix, in, out, x, y, rows, scratch, threads;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLL", &matrix, &in, &out, &x, &y, &rows, &scratch, &threads)) return NULL;
    const Matrix *m = (const Matrix *)(intptr_t)matrix;
    if (!require(fits(in) && out > 0 && rows >= 0 && m->rank >= 0 && m->rank % PANEL_COLUMNS == 0,
                 "multiply: the width and the rank must be multiples of 16"))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    int parallel = acquire_workers(threads);
    kernels->multiply(m, in, out, (const float *)(intptr_t)x, (float *)(intptr_t)y, rows, (float *)(intptr_t)scratch, parallel);
    if (parallel) release_workers();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_step(PyObject *self, PyObject *arguments) {
    (void)self;
    long long shape, layers, final, embedding, rotations, kv, capacity, ids, x, start, rows, wanted, scratch, threads;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLLLLLLLL", &shape, &layers, &final, &embedding, &rotations, &kv, &capacity, &ids, &x,
                          &start, &rows, &wanted, &scratch, &threads))
        return NULL;
    if (!require(shape_fits((const ModelShape *)(intptr_t)shape), "step: widths and ranks must be multiples of 16") ||
        !require(fits(capacity) && start >= 0 && rows > 0 && wanted > 0 && wanted <= rows && start + rows <= capacity,
                 "step: the positions do not fit the cache, whose capacity must be a multiple of 16"))
        return NULL;
    KVCache cache = {(void *)(intptr_t)kv, capacity};
    Py_BEGIN_ALLOW_THREADS
    int parallel = acquire_workers(threads);
    kernels->step((const ModelShape *)(intptr_t)shape, (const Layer *)(intptr_t)layers, (const float *)(intptr_t)final,
                  (const void *)(intptr_t)embedding, (const float *)(intptr_t)rotations, &cache, (const int32_t *)(intptr_t)ids,
                  (float *)(intptr_t)x, start, rows, wanted, (float *)(intptr_t)scratch, parallel);
    if (parallel) release_workers();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_final_map(PyObject *self, PyObject *arguments) {
    (void)self;
    long long x, map, out, d, rows;
    if (!PyArg_ParseTuple(arguments, "LLLLL", &x, &map, &out, &d, &rows)) return NULL;
    if (!require(fits(d) && rows >= 0 && rows <= PANEL_COLUMNS, "final_map: the width must be a multiple of 16, rows at most 16"))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    kernels->map((const float *)(intptr_t)x, (const float *)(intptr_t)map, (float *)(intptr_t)out, d, rows);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_argmax(PyObject *self, PyObject *arguments) {
    (void)self;
    long long logits, count, tokens, norms, rows;
    if (!PyArg_ParseTuple(arguments, "LLLLL", &logits, &count, &tokens, &norms, &rows)) return NULL;
    if (!require(count > 0 && count <= INT32_MAX && rows >= 0, "argmax: rows must not be empty")) return NULL;
    Py_BEGIN_ALLOW_THREADS
    kernels->argmax((const float *)(intptr_t)logits, count, (int32_t *)(intptr_t)tokens, (double *)(intptr_t)norms, rows);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_mix_memory(PyObject *self, PyObject *arguments) {
    (void)self;
    long long ids, last, places, keys, basis, count, width, inner, tokens, order, positions, vocabulary, gate;
    long long hidden, tails, logits, rows, targets, out;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLLLLLLLLLLLLL", &ids, &last, &places, &keys, &basis, &count, &width, &inner, &tokens,
                          &order, &positions, &vocabulary, &gate, &hidden, &tails, &logits, &rows, &targets, &out))
        return NULL;
    if (!require(fits(width) && width <= MAX_KEY_WIDTH && fits(inner), "mix_memory: widths must be multiples of 16, keys at most 512") ||
        !require(count >= 0 && count <= INT32_MAX && vocabulary > 0 && rows >= 0, "mix_memory: a count is negative") ||
        !require(positions >= 0 && positions <= INT32_MAX, "mix_memory: a count is negative"))
        return NULL;
    Memory memory = {(const int32_t *)(intptr_t)ids, (const int32_t *)(intptr_t)last, (const int32_t *)(intptr_t)places,
                     (const int8_t *)(intptr_t)keys, (const float *)(intptr_t)basis, count, width, inner, vocabulary,
                     (const int32_t *)(intptr_t)tokens, (const int32_t *)(intptr_t)order, positions,
                     (const double *)(intptr_t)gate};
    Py_BEGIN_ALLOW_THREADS
    kernels->memory(&memory, (const float *)(intptr_t)hidden, (const int32_t *)(intptr_t)tails, (float *)(intptr_t)logits, rows,
                    (const int32_t *)(intptr_t)targets, (double *)(intptr_t)out);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_sort_positions(PyObject *self, PyObject *arguments) {
    (void)self;
    long long ids, order, n;
    if (!PyArg_ParseTuple(arguments, "LLL", &ids, &order, &n)) return NULL;
    if (!require(n >= 0 && n <= INT32_MAX, "sort_positions: a count is negative or too large")) return NULL;
    Py_BEGIN_ALLOW_THREADS
    sort_positions((const int32_t *)(intptr_t)ids, (int32_t *)(intptr_t)order, n);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_merge_positions(PyObject *self, PyObject *arguments) {
    (void)self;
    long long ids, order, n, fresh, added, out;
    if (!PyArg_ParseTuple(arguments, "LLLLLL", &ids, &order, &n, &fresh, &added, &out)) return NULL;
    if (!require(n >= 0 && added >= 0 && n + added <= INT32_MAX, "merge_positions: a count is negative or too large")) return NULL;
    Py_BEGIN_ALLOW_THREADS
    merge_positions((const int32_t *)(intptr_t)ids, (const int32_t *)(intptr_t)order, n, (const int32_t *)(intptr_t)fresh, added,
                    (int32_t *)(intptr_t)out);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_find_token_candidates(PyObject *self, PyObject *arguments) {
    (void)self;
    long long ids, order, n, tail, lengths, next;
    if (!PyArg_ParseTuple(arguments, "LLLLLL", &ids, &order, &n, &tail, &lengths, &next)) return NULL;
    if (!require(n >= 0 && n <= INT32_MAX, "find_token_candidates: a count is negative or too large")) return NULL;
    TokenCandidates found;
    find_token_candidates((const int32_t *)(intptr_t)ids, (const int32_t *)(intptr_t)order, n, (const int32_t *)(intptr_t)tail,
                          &found);
    memcpy((void *)(intptr_t)lengths, found.lengths, (size_t)found.count * sizeof *found.lengths);
    memcpy((void *)(intptr_t)next, found.next, (size_t)found.count * sizeof *found.next);
    return Py_BuildValue("LL", (long long)found.count, (long long)found.positions);
}

static PyMethodDef methods[] = {
    {"select_lanes", py_select_lanes, METH_VARARGS,
     "select_lanes(lanes): select registers of 4 or 8 numbers; returns 0 if the processor has none such."},
    {"multiply", py_multiply, METH_VARARGS,
     "multiply(matrix, in, out, x, y, rows, scratch, threads): y = x Wᵀ + bias, plus the LoRA term."},
    {"step", py_step, METH_VARARGS,
     "step(shape, layers, final, embedding, rotations, kv, capacity, ids, x, start, rows, wanted, scratch, threads): x = final "
     "normed hidden states of the last `wanted` rows."},
    {"final_map", py_final_map, METH_VARARGS, "final_map(x, map, out, d, rows): out = x + x mapᵀ."},
    {"argmax", py_argmax, METH_VARARGS, "argmax(logits, count, tokens, norms, rows): argmax and log Σ e^logit of each row."},
    {"mix_memory", py_mix_memory, METH_VARARGS,
     "mix_memory(ids, last, places, keys, basis, count, width, inner, tokens, order, positions, vocabulary, gate, hidden, tails, "
     "logits, rows, targets, out): mix the kNN memory into logits, in place."},
    {"sort_positions", py_sort_positions, METH_VARARGS,
     "sort_positions(ids, order, n): sort positions by the tokens before them, nearest first."},
    {"merge_positions", py_merge_positions, METH_VARARGS,
     "merge_positions(ids, order, n, fresh, added, out): merge sorted positions into sorted ones."},
    {"find_token_candidates", py_find_token_candidates, METH_VARARGS,
     "find_token_candidates(ids, order, n, tail, lengths, next): (candidates, positions that have the longest match)."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", "Inference on int8 weights; see _kernel.c.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) {
    if (!select_lanes(8)) select_lanes(4);
    return PyModule_Create(&module);
}
