/* Drives the kernel's thread pool for some seconds: pool SECONDS. Several callers multiply at the same time; pauses let
 * the workers fall asleep, so that every way into and out of sleep is taken. Exit code 1: a product has other bits than on
 * one thread. tests/sanitize compiles this program with ThreadSanitizer. */
#include "_kernel.c"

#include <stdio.h>

enum { CALLERS = 3, IN = 64, OUT = 3000, ROWS = 3, SCRATCH = ROWS * (IN / 2 + 2) };

static int8_t weight[(OUT + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS * IN];
static float scale[OUT], x[ROWS * IN], expected[ROWS * OUT];
static const Matrix matrix = {weight, scale, NULL, NULL, NULL, NULL, NULL, 0};
static int64_t deadline, jobs;

static void product(float *y, float *scratch, int64_t threads) {
    int parallel = acquire_workers(threads);
    kernels->multiply(&matrix, IN, OUT, x, y, ROWS, scratch, parallel);
    if (parallel) release_workers();
}

static void *call(void *number) {
    static float y[CALLERS][ROWS * OUT], scratch[CALLERS][SCRATCH];
    intptr_t own = (intptr_t)number;
    struct timespec pause = {0, 3 * SPIN_NS};
    for (int64_t round = 0; monotonic_ns() < deadline; round++) {
        memset(y[own], 0, sizeof y[own]);
        product(y[own], scratch[own], 2 + (round + own) % 6);
        if (memcmp(y[own], expected, sizeof expected)) return (void *)1;
        __atomic_add_fetch(&jobs, 1, __ATOMIC_RELAXED);
        if (round % 4 == own) nanosleep(&pause, NULL);
    }
    return NULL;
}

int main(int count, char **arguments) {
    static float scratch[SCRATCH];
    deadline = monotonic_ns() + (int64_t)((count > 1 ? atof(arguments[1]) : 1.0) * 1e9);
    if (!select_lanes(8)) select_lanes(4);
    for (size_t i = 0; i < sizeof weight; i++) weight[i] = (int8_t)(i * 37 % 255 - 127);
    for (int i = 0; i < OUT; i++) scale[i] = 0.001f * (float)(i % 7 + 1);
    for (int i = 0; i < ROWS * IN; i++) x[i] = (float)(i % 23 - 11);
    product(expected, scratch, 1);
    pthread_t callers[CALLERS];
    for (intptr_t i = 0; i < CALLERS; i++)
        if (pthread_create(&callers[i], NULL, call, (void *)i)) return 2;
    int wrong = 0;
    for (int i = 0; i < CALLERS; i++) {
        void *failed;
        pthread_join(callers[i], &failed);
        wrong |= failed != NULL;
    }
    printf("%lld products, %s\n", (long long)jobs, wrong ? "WRONG BITS" : "all right");
    return wrong;
}
