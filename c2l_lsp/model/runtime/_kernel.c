/* Decode steps and prompts of a Llama-shaped model on int8 weights, and what is recalled at each: on the calling thread, with
 * the help of a few more where there is enough to do.
 *
 * A small model's step is bound by what it costs to dispatch some hundred operations, not by its arithmetic; here it is
 * one call. Weights are int8 with a scale per row, what they are multiplied by has 16 bits with a scale per row, so that
 * sums are exact; everything else is fp32, keys and values fp32, bf16 or fp16. A row has the same bits however many are computed at
 * once, so a checked draft equals single steps, and a prompt read in one go one read token by token.
 *
 * Plain C with the vector extensions of GCC and Clang; wider registers are used where the processor has them. Addresses
 * come from `kernel.py`, which sees to shapes, types and lifetimes; nothing is checked here.
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
#define APART static __attribute__((noinline))
#else
#define APART static __attribute__((noinline, noclone))
#endif
enum {
    BLOCK = 64,     /* positions whose keys stay in the first cache until every head has seen them */
    MOST_WIDTH = 512, /* of the keys that are recalled by */
    CHAINS = 8,     /* sums that are added to at once: as many as hide an addition's latency */
    STRIP = 8, COLUMNS = 16, /* rows of weights that lie side by side, and how many numbers of each in turn; as in kernel.py */
    GROUP = 4,      /* rows of what they are multiplied by that do */
    AHEAD = 4096,   /* bytes by which weights are asked for before they are needed */
    PART = 32768,   /* bytes of weights that a thread takes at once */
    FAR = 256,      /* positions from which on attention is shared */
    MOST_HEAD = 256, /* numbers of a head whose keys are unpacked for a tile */
    TILE = 8,       /* rows that attend together; as in steps.py */
    SOON = 16,      /* positions by which keys and values are */
};

typedef struct {
    const int8_t *weight; /* [out / STRIP, in / COLUMNS, STRIP, COLUMNS], the last rows filled up with zeros */
    const float *scale;   /* [out] */
    const float *bias;    /* [out] or NULL */
    /* Beside it, or rank 0: y += high (low x), both like weight and scale, low [rank, in], high [out, rank]. */
    const int8_t *low;
    const float *low_scale;
    const int8_t *high;
    const float *high_scale;
    int64_t rank;
} Matrix;

/* All of a model that a step needs to know; one row of `layers` per layer. */
typedef struct {
    int64_t width, heads, kv_heads, head_dim, inner, layers;
    int64_t embedded, kind; /* kinds of numbers: of the embedding, of the text */
    int64_t rank;           /* highest of what stands beside matrices */
    double eps;
} Shape;

typedef struct {
    const float *attention_norm;
    Matrix qkv, output;
    const float *mlp_norm;
    Matrix gate_up, down;
} Layer;

enum { BF16, FP32, FP16 }; /* kinds of numbers; as in steps.py */

/* Keys and values of a text, keys beside values: [layers, capacity, 2 · kv_heads · head_dim]. */
typedef struct {
    void *all;
    int64_t capacity;
} Text;

/* Where keys and values of one head stand in [positions from `first` on, stride]. */
typedef struct {
    const void *kv;
    int64_t stride, key, value, width, first;
} Keys;

/* What parts of a product and of an attention need to know. */
typedef struct {
    const int8_t *weight; /* this and the next as in Matrix */
    const float *scale, *bias;
    int64_t in, out, rows, each; /* strips of a part */
    const int16_t *numbers;
    const float *scales;
    float *y;
    int more; /* added to what y is */
} Product;

typedef struct {
    const Shape *shape;
    const void *kv;
    const float *projected;
    float *seen, *scores;
    int64_t start, rows, capacity, apart; /* numbers between the scores of a thread and the next one's */
} Attention;

enum { LONGEST = 8, NEAREST = 32, MOST = 4096, FEATURES = 7 }; /* as in recall.py */

/* What is recalled of a folder; see recall.py. Places in `ids`, their tokens and keys are sorted by token. */
typedef struct {
    const int32_t *ids, *last, *places; /* [all], [count], [count] */
    const int8_t *keys;                 /* [count, width] */
    const float *basis;                 /* [width, inner] */
    int64_t count, width, inner, vocabulary;
    const double *trust; /* τ, ρ, bias, a weight per feature, strength */
} Memory;

typedef struct {
    float cosine[NEAREST], run[NEAREST];
    int32_t next[NEAREST];
    int64_t count, all; /* of those above; of all that there are */
} Found;

typedef void Recalled(const Memory *, const float *, const int32_t *, float *, int64_t);
typedef void Multiplied(const Matrix *, int64_t, int64_t, const float *, float *, int64_t, float *, int);
typedef void Stepped(const Shape *, const Layer *, const float *, const void *, const float *, const Text *, const int32_t *,
                     float *, int64_t, int64_t, int64_t, float *, int);
typedef void Mapped(const float *, const float *, float *, int64_t, int64_t);
typedef void Likeliest(const float *, int64_t, int32_t *, double *, int64_t);

/* What the files below define is named floats_4, floats_8 …: each is included once for every width of registers. */
#define floats NAME(floats)
#define ints NAME(ints)
#define bytes NAME(bytes)
#define halves NAME(halves)
#define words NAME(words)
#define quad NAME(quad)
#define widened NAME(widened)
#define total NAME(total)
#define shorts NAME(shorts)
#define Pair NAME(Pair)
#define paired NAME(paired)
#define given NAME(given)
#define nearest NAME(nearest)
#define rounded NAME(rounded)
#define exponential NAME(exponential)
#define loaded NAME(loaded)
#define stored NAME(stored)
#define block NAME(block)
#define product NAME(product)
#define normed NAME(normed)
#define placed NAME(placed)
#define asked NAME(asked)
#define totals NAME(totals)
#define whole_totals NAME(whole_totals)
#define unpacked NAME(unpacked)
#define some_compared NAME(some_compared)
#define finished NAME(finished)
#define strips NAME(strips)
#define divided NAME(divided)
#define some_strips NAME(some_strips)
#define one_attended NAME(one_attended)
#define all_attended NAME(all_attended)
#define greater NAME(greater)
#define highest NAME(highest)
#define compared NAME(compared)
#define weighed NAME(weighed)
#define seen_more NAME(seen_more)
#define viewed NAME(viewed)
#define attended NAME(attended)
#define gated NAME(gated)
#define added NAME(added)
#define multiplied NAME(multiplied)
#define stepped NAME(stepped)
#define dots NAME(dots)
#define summed NAME(summed)
#define lower_bound NAME(lower_bound)
#define found_best NAME(found_best)
#define judged NAME(judged)
#define recalled NAME(recalled)
#define strip NAME(strip)
#define mapped NAME(mapped)
#define likeliest NAME(likeliest)

#define LANES 4
#define NAME(name) name##_4
#include "_vectors.h"
#include "_step.h"
#include "_recall.h"
#undef LANES
#undef HELD
#undef NAME

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define LANES 8
#define NAME(name) name##_8
#include "_vectors.h"
#include "_step.h"
#include "_recall.h"
#undef LANES
#undef HELD
#undef NAME
#pragma GCC pop_options
#endif

/* The kernels of one width of registers. */
typedef struct {
    Multiplied *multiply;
    Stepped *step;
    Recalled *recall;
    Mapped *map;
    Likeliest *best;
} Kernels;

static const Kernels narrow = {multiplied_4, stepped_4, recalled_4, mapped_4, likeliest_4};
#if defined(__x86_64__)
static const Kernels broad = {multiplied_8, stepped_8, recalled_8, mapped_8, likeliest_8};
#endif
static const Kernels *in_use = &narrow;

/* Take the kernels for registers of so many numbers; 0 if this processor has none such. */
static int chosen(int wanted) {
#if defined(__x86_64__)
    if (wanted == 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        in_use = &broad;
        return wanted;
    }
#endif
    if (wanted != 4) return 0;
    in_use = &narrow;
    return wanted;
}

static PyObject *use(PyObject *self, PyObject *arguments) {
    (void)self;
    int wanted;
    if (!PyArg_ParseTuple(arguments, "i", &wanted)) return NULL;
    return PyLong_FromLong(chosen(wanted));
}

static PyObject *multiply(PyObject *self, PyObject *arguments) {
    (void)self;
    long long matrix, in, out, x, y, rows, room, threads;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLL", &matrix, &in, &out, &x, &y, &rows, &room, &threads)) return NULL;
    const Matrix *m = (const Matrix *)(intptr_t)matrix;
    Py_BEGIN_ALLOW_THREADS
    int team = hired(threads);
    in_use->multiply(m, in, out, (const float *)(intptr_t)x, (float *)(intptr_t)y, rows, (float *)(intptr_t)room, team);
    if (team) released();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *step(PyObject *self, PyObject *arguments) {
    (void)self;
    long long shape, layers, final, embedding, turns, kv, capacity, ids, x, start, rows, wanted, room, threads;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLLLLLLLL", &shape, &layers, &final, &embedding, &turns, &kv, &capacity, &ids, &x,
                          &start, &rows, &wanted, &room, &threads))
        return NULL;
    Text text = {(void *)(intptr_t)kv, capacity};
    Py_BEGIN_ALLOW_THREADS
    int team = hired(threads);
    in_use->step((const Shape *)(intptr_t)shape, (const Layer *)(intptr_t)layers, (const float *)(intptr_t)final,
                    (const void *)(intptr_t)embedding, (const float *)(intptr_t)turns, &text, (const int32_t *)(intptr_t)ids,
                    (float *)(intptr_t)x, start, rows, wanted, (float *)(intptr_t)room, team);
    if (team) released();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *map(PyObject *self, PyObject *arguments) {
    (void)self;
    long long x, map, out, d, rows;
    if (!PyArg_ParseTuple(arguments, "LLLLL", &x, &map, &out, &d, &rows)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    in_use->map((const float *)(intptr_t)x, (const float *)(intptr_t)map, (float *)(intptr_t)out, d, rows);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *best(PyObject *self, PyObject *arguments) {
    (void)self;
    long long logits, count, tokens, norms, rows;
    if (!PyArg_ParseTuple(arguments, "LLLLL", &logits, &count, &tokens, &norms, &rows)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    in_use->best((const float *)(intptr_t)logits, count, (int32_t *)(intptr_t)tokens, (double *)(intptr_t)norms, rows);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *recall(PyObject *self, PyObject *arguments) {
    (void)self;
    long long ids, last, places, keys, basis, count, width, inner, vocabulary, trust, hidden, tails, logits, rows;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLLLLLLLL", &ids, &last, &places, &keys, &basis, &count, &width, &inner, &vocabulary,
                          &trust, &hidden, &tails, &logits, &rows))
        return NULL;
    Memory memory = {(const int32_t *)(intptr_t)ids, (const int32_t *)(intptr_t)last, (const int32_t *)(intptr_t)places,
                     (const int8_t *)(intptr_t)keys, (const float *)(intptr_t)basis, count, width, inner, vocabulary,
                     (const double *)(intptr_t)trust};
    Py_BEGIN_ALLOW_THREADS
    in_use->recall(&memory, (const float *)(intptr_t)hidden, (const int32_t *)(intptr_t)tails, (float *)(intptr_t)logits, rows);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"use", use, METH_VARARGS, "use(lanes): take the kernels for registers of 4 or 8 numbers; 0 if there are none."},
    {"multiply", multiply, METH_VARARGS, "multiply(matrix, in, out, x, y, rows, room, threads): y = x Wᵀ · scale + bias, and what stands beside."},
    {"step", step, METH_VARARGS,
     "step(shape, layers, final, embedding, turns, kv, capacity, ids, x, start, rows, wanted, room, threads): x = states after all "
     "layers, of the last `wanted` rows."},
    {"map", map, METH_VARARGS, "map(x, map, out, d, rows): out = x + x mapᵀ."},
    {"best", best, METH_VARARGS, "best(logits, count, tokens, norms, rows): the likeliest token of each row, log Σ e^logit."},
    {"recall", recall, METH_VARARGS,
     "recall(ids, last, places, keys, basis, count, width, inner, vocabulary, trust, hidden, tails, logits, rows): mixed in place."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", "Decode steps on int8 weights; see _kernel.c.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) {
    if (!chosen(8)) chosen(4);
    return PyModule_Create(&module);
}
