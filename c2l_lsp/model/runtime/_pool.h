/* A thread pool for matrix products and attention. It runs one job at a time; a job is divided into parts, and every free
 * thread takes the next part.
 *
 * The calling thread runs parts too and never waits for a worker that holds none, so a worker that the system schedules
 * late delays nothing. Workers poll for parts during a step and for SPIN_NS after it; then they sleep. Workers avoid the
 * caller's CPU: a part that a worker began there would be suspended while the caller spins waiting for it.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

enum { MAX_WORKERS = 7, SPINS = 64, SPIN_NS = 200000 };

/* Runs part `part` of a job. `thread` is 0 for the caller, 1 + i for worker i. */
typedef void Task(const void *arguments, int64_t part, int64_t thread);

typedef struct {
    Task *run;
    const void *arguments;
    int64_t parts, done;
} Job;

static struct {
    pthread_mutex_t mutex;  /* guards `sleeping`, `usable` and the setting of `busy`, not its clearing */
    pthread_mutex_t caller; /* held by the one caller at a time */
    pthread_cond_t wake;
    Job jobs[2];    /* indexed by the low bit of the job's number: a late worker may still read the previous job */
    uint64_t state; /* upper half: number of the job; lower half: its next part */
    int64_t workers, sleeping, busy, usable; /* usable: workers that the current caller may use */
    int caller_cpu;                          /* −1 if unknown */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .caller = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void cpu_relax(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The CPU that runs this thread, −1 if unknown. */
static int current_cpu(void) {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* Moves this thread off a CPU if the process may use another one. */
static void leave_cpu(int cpu) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(getpid(), sizeof allowed, &allowed)) return; /* of the main thread: this thread's was narrowed */
    CPU_CLR(cpu, &allowed);
    if (CPU_COUNT(&allowed)) sched_setaffinity(0, sizeof allowed, &allowed);
#else
    (void)cpu;
#endif
    sched_yield();
}

/* Runs one part of the current job. Returns 0 if none is left. */
static int run_next_part(int64_t thread) {
    uint64_t state = __atomic_load_n(&pool.state, __ATOMIC_ACQUIRE);
    Job *job = &pool.jobs[state >> 32 & 1];
    int64_t part = (int64_t)(state & 0xffffffff);
    if (part >= __atomic_load_n(&job->parts, __ATOMIC_RELAXED)) return 0;
    /* Fails if another job has started since; what was read of this one is then unused. */
    if (__atomic_compare_exchange_n(&pool.state, &state, state + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        job->run(job->arguments, part, thread);
        __atomic_add_fetch(&job->done, 1, __ATOMIC_RELEASE);
    }
    return 1;
}

static void *worker_main(void *index) {
    for (;;) {
        int64_t deadline = 0;
        while ((intptr_t)index < __atomic_load_n(&pool.usable, __ATOMIC_RELAXED)) {
            int cpu = __atomic_load_n(&pool.caller_cpu, __ATOMIC_RELAXED);
            if (cpu >= 0 && current_cpu() == cpu) leave_cpu(cpu);
            else if (run_next_part(1 + (intptr_t)index)) {
                deadline = 0;
                continue;
            }
            for (int i = 0; i < SPINS; i++) cpu_relax();
            if (__atomic_load_n(&pool.busy, __ATOMIC_ACQUIRE)) continue;
            if (!deadline) deadline = monotonic_ns() + SPIN_NS;
            else if (monotonic_ns() > deadline) break;
        }
        pthread_mutex_lock(&pool.mutex);
        pool.sleeping++;
        /* `busy` is cleared without the mutex; a worker that misses it polls once more and sleeps again. */
        while (!__atomic_load_n(&pool.busy, __ATOMIC_ACQUIRE) || (intptr_t)index >= pool.usable)
            pthread_cond_wait(&pool.wake, &pool.mutex);
        pool.sleeping--;
        pthread_mutex_unlock(&pool.mutex);
    }
    return NULL;
}

/* Reserves the pool with up to threads − 1 workers until `release_workers`. Returns 0, without waiting, if another caller
 * holds the pool or if one thread is enough. */
static int acquire_workers(int64_t threads) {
    int64_t wanted = threads - 1 < MAX_WORKERS ? threads - 1 : MAX_WORKERS;
    if (wanted < 1 || pthread_mutex_trylock(&pool.caller)) return 0;
    if (pool.workers < wanted) {
        sigset_t all, before; /* workers block all signals: the interpreter's threads handle them */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        for (pthread_t thread; pool.workers < wanted; pool.workers++) {
            if (pthread_create(&thread, NULL, worker_main, (void *)(intptr_t)pool.workers)) break;
            pthread_detach(thread);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_mutex_lock(&pool.mutex);
    __atomic_store_n(&pool.caller_cpu, current_cpu(), __ATOMIC_RELAXED);
    __atomic_store_n(&pool.usable, wanted, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.busy, 1, __ATOMIC_RELEASE);
    if (pool.sleeping) pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.mutex);
    return 1;
}

static void release_workers(void) {
    __atomic_store_n(&pool.busy, 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&pool.caller);
}

/* Runs all parts of a job on the caller and the workers it acquired. */
static void run_parallel(Task *run, const void *arguments, int64_t parts) {
    uint64_t number = (__atomic_load_n(&pool.state, __ATOMIC_RELAXED) >> 32) + 1;
    Job *job = &pool.jobs[number & 1];
    job->run = run, job->arguments = arguments;
    __atomic_store_n(&job->done, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&job->parts, parts, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.state, number << 32, __ATOMIC_RELEASE);
    while (run_next_part(0)) continue;
    for (int64_t spins = 1; __atomic_load_n(&job->done, __ATOMIC_ACQUIRE) < parts; spins++)
        if (spins % SPINS) cpu_relax();
        else sched_yield(); /* the worker that holds the last part may be waiting for this CPU */
}
