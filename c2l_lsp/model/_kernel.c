/* Decode steps of a Llama-shaped model on int8 weights: a few rows against every weight once, on the calling thread.
 *
 * A small model's step is bound by what it costs to dispatch some hundred operations, not by its arithmetic; here it is
 * one call. Weights are int8 with a scale per row, everything else fp32, keys and values fp32 or bf16. A row's sums have
 * the same order however many rows are computed at once, so a checked draft equals single steps bit for bit.
 *
 * Plain C with the vector extensions of GCC and Clang; wider registers are used where the processor has them. Addresses
 * come from `kernel.py`, which sees to shapes, types and lifetimes; nothing is checked here.
 */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if !defined(__GNUC__)
#error "needs the vector extensions of GCC or Clang; without this module PyTorch's kernels are used"
#endif

#define INLINE static inline __attribute__((always_inline))
enum {
    BLOCK = 64,     /* positions whose keys stay in the first cache until every head has seen them */
    MOST_HEADS = 64, /* that share keys */
    CHAINS = 8,     /* sums that are added to at once: as many as hide an addition's latency */
};

typedef struct {
    const int8_t *weight; /* [out, in] */
    const float *scale;   /* [out] */
    const float *bias;    /* [out] or NULL */
} Matrix;

/* All of a model that a step needs to know; one row of `layers` per layer. */
typedef struct {
    int64_t width, heads, kv_heads, head_dim, inner, layers, wide;
    double eps;
} Shape;

typedef struct {
    const float *attention_norm;
    Matrix qkv, output;
    const float *mlp_norm;
    Matrix gate_up, down;
} Layer;

/* Keys and values of a text, keys beside values: [layers, capacity, 2 · kv_heads · head_dim], fp32 or (not wide) bf16. */
typedef struct {
    void *all;
    int64_t capacity;
} Text;

/* Where keys and values of one head stand in [positions, stride]. */
typedef struct {
    const void *kv;
    int64_t stride, key, value, width;
    int wide;
} Keys;

typedef void Multiplied(const Matrix *, int64_t, int64_t, const float *, float *, int64_t);
typedef void Stepped(const Shape *, const Layer *, const float *, const float *, const Text *, float *, int64_t, int64_t, float *);

#define LANES 4
#define NAME(name) name##_4
#include "_kernel.h"
#undef LANES
#undef NAME

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LANES 8
#define NAME(name) name##_8
#include "_kernel.h"
#undef LANES
#undef NAME
#pragma GCC pop_options
#endif

static Multiplied *multiplied = multiplied_4;
static Stepped *stepped = stepped_4;

/* Kernels for registers of so many numbers; whether this processor has them. */
static int chosen(int wanted) {
#if defined(__x86_64__)
    if (wanted == 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        multiplied = multiplied_8, stepped = stepped_8;
        return wanted;
    }
#endif
    if (wanted != 4) return 0;
    multiplied = multiplied_4, stepped = stepped_4;
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
    long long weight, scale, bias, in, out, x, y, rows;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLL", &weight, &scale, &bias, &in, &out, &x, &y, &rows)) return NULL;
    Matrix m = {(const int8_t *)(intptr_t)weight, (const float *)(intptr_t)scale, (const float *)(intptr_t)bias};
    Py_BEGIN_ALLOW_THREADS
    multiplied(&m, in, out, (const float *)(intptr_t)x, (float *)(intptr_t)y, rows);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *step(PyObject *self, PyObject *arguments) {
    (void)self;
    long long shape, layers, final, turns, kv, capacity, x, start, rows, room;
    if (!PyArg_ParseTuple(arguments, "LLLLLLLLLL", &shape, &layers, &final, &turns, &kv, &capacity, &x, &start, &rows, &room))
        return NULL;
    Text text = {(void *)(intptr_t)kv, capacity};
    Py_BEGIN_ALLOW_THREADS
    stepped((const Shape *)(intptr_t)shape, (const Layer *)(intptr_t)layers, (const float *)(intptr_t)final,
            (const float *)(intptr_t)turns, &text, (float *)(intptr_t)x, start, rows, (float *)(intptr_t)room);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"use", use, METH_VARARGS, "use(lanes): take the kernels for registers of 4 or 8 numbers; 0 if there are none."},
    {"multiply", multiply, METH_VARARGS, "multiply(weight, scale, bias, in, out, x, y, rows): y = x Wᵀ · scale + bias."},
    {"step", step, METH_VARARGS, "step(shape, layers, final, turns, kv, capacity, x, start, rows, room): rows of x after all layers, in place."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", "Decode steps on int8 weights; see _kernel.c.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) {
    if (!chosen(8)) chosen(4);
    return PyModule_Create(&module);
}
