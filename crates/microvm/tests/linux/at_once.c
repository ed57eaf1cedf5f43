// Threads that run at once: what each mode does is in at_once.rs.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 64

static atomic_int turn;
static int rounds;

// Hands a turn to and fro through memory, without a system call.
static void *hands_back(void *arg) {
    for (int round = 0; round < rounds; round++) {
        while (atomic_load(&turn) != 1) {}
        atomic_store(&turn, 0);
    }
    return arg;
}

static void hand(int times) {
    pthread_t other;
    rounds = times;
    pthread_create(&other, NULL, hands_back, NULL);
    for (int round = 0; round < times; round++) {
        atomic_store(&turn, 1);
        while (atomic_load(&turn) != 0) {}
    }
    pthread_join(other, NULL);
}

static void *spins(void *arg) {
    for (;;) {}
    return arg;
}

static void others_spin(int count) {
    for (int index = 0; index < count; index++) {
        pthread_t other;
        pthread_create(&other, NULL, spins, NULL);
    }
}

static void *waits(void *arg) {
    pause();
    return arg;
}

static void many(void) {
    int made = 0, refused = 0, why = 0;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    for (int index = 0; index < 10000; index++) {
        pthread_t other;
        int error = pthread_create(&other, &small, waits, NULL);
        made += error == 0;
        refused += error != 0;
        why = error ? error : why;
    }
    printf("%d %d %d\n", made, refused, why == EAGAIN);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long sum, passed;

static void *counts(void *arg) {
    for (int index = 0; index < 20000; index++) {
        pthread_mutex_lock(&lock);
        sum++;
        pthread_mutex_unlock(&lock);
    }
    for (int index = 0; index < 200; index++) {
        pthread_mutex_lock(&lock);
        while (passed % 4 != (long)arg) pthread_cond_wait(&changed, &lock);
        passed++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void locks(void) {
    pthread_t all[4];
    for (long index = 0; index < 4; index++) pthread_create(&all[index], NULL, counts, (void *)index);
    for (int index = 0; index < 4; index++) pthread_join(all[index], NULL);
    printf("%ld %ld\n", sum, passed);
}

static volatile uint64_t *page;
static atomic_long asked, answered;
static atomic_ulong found;

// Looks at the page each time that it is asked to.
static void *looks(void *arg) {
    for (long look = 1;; look++) {
        while (atomic_load(&asked) < look) {}
        atomic_store(&found, *page);
        atomic_store(&answered, look);
    }
    return arg;
}

static uint64_t look(void) {
    long number = atomic_fetch_add(&asked, 1) + 1;
    while (atomic_load(&answered) < number) {}
    return atomic_load(&found);
}

static volatile void *fresh(int fixed) {
    void *at = mmap((void *)page, PAGE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | (fixed ? MAP_FIXED : 0), -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

// What one thread unmaps, the other does not see.
static void maps(void) {
    pthread_t other;
    long wrong = 0;
    page = fresh(0);
    pthread_create(&other, NULL, looks, NULL);
    for (uint64_t round = 1; round <= 500; round++) {
        *page = round;
        wrong += look() != round;
        wrong += fresh(1) != page;
        wrong += look() != 0;
    }
    printf("%ld\n", wrong);
}

static char *wide;
static atomic_int ready;

// Touches pages that nobody has touched, at the same time as others.
static void *touches(void *arg) {
    long own = (long)arg, wrong = 0;
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < 3) {}
    for (long index = 0; index < 4096; index++) {
        char *at = wide + (index * 3 + own) * PAGE;
        wrong += at[0] != 0;
        at[0] = (char)(own + 1);
    }
    for (long index = 0; index < 4096; index++) wrong += wide[(index * 3 + own) * PAGE] != own + 1;
    return (void *)wrong;
}

static void pages(void) {
    pthread_t all[3];
    long wrong = 0;
    wide = mmap(NULL, 3L * 4096 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long index = 0; index < 3; index++) pthread_create(&all[index], NULL, touches, (void *)index);
    for (int index = 0; index < 3; index++) {
        void *one;
        pthread_join(all[index], &one);
        wrong += (long)one;
    }
    printf("%ld\n", wrong);
}

static atomic_int signalled, spinning;

static void handler(int signal) { atomic_store(&signalled, signal); }

static void *until_signalled(void *arg) {
    atomic_store(&spinning, 1);
    while (!atomic_load(&signalled)) {}
    return arg;
}

static void signals(void) {
    pthread_t other;
    signal(SIGUSR1, handler);
    pthread_create(&other, NULL, until_signalled, NULL);
    while (!atomic_load(&spinning)) {}
    pthread_kill(other, SIGUSR1);
    pthread_join(other, NULL);
    printf("%d\n", atomic_load(&signalled) == SIGUSR1);
}

static char left[2][PAGES][PAGE];

// Finds nothing of what was left by another call, and leaves something.
static void *leaves(void *arg) {
    long own = (long)arg, found = 0;
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < 2) {}
    for (int index = 0; index < PAGES; index++) {
        found += left[own][index][own];
        left[own][index][own] = 1;
    }
    return (void *)found;
}

static void clean(void) {
    char body[16];
    while (read(0, body, sizeof body) > 0) {}
    pthread_t other;
    void *theirs;
    pthread_create(&other, NULL, leaves, (void *)1);
    void *ours = leaves(NULL);
    pthread_join(other, &theirs);
    printf("%ld %ld\n", (long)ours, (long)theirs);
}

static atomic_int computed;

static void *computes(void *arg) {
    for (volatile long index = 0; index < 20000000; index++) {}
    atomic_store(&computed, 1);
    return arg;
}

// Lets another thread work, and keeps its own processor from doing that.
static void work(void) {
    char body[16];
    while (read(0, body, sizeof body) > 0) {}
    pthread_t other;
    pthread_create(&other, NULL, computes, NULL);
    while (!atomic_load(&computed)) {}
    pthread_join(other, NULL);
}

int main(int count, char **args) {
    const char *mode = count > 1 ? args[1] : "";
    cpu_set_t set;
    if (!strcmp(mode, "hand")) hand(100000);
    if (!strcmp(mode, "many")) many();
    if (!strcmp(mode, "locks")) locks();
    if (!strcmp(mode, "maps")) maps();
    if (!strcmp(mode, "pages")) pages();
    if (!strcmp(mode, "signals")) signals();
    if (!strcmp(mode, "clean")) clean();
    if (!strcmp(mode, "work")) work();
    if (!strcmp(mode, "count")) {
        sched_getaffinity(0, sizeof set, &set);
        printf("%d %ld\n", CPU_COUNT(&set), sysconf(_SC_NPROCESSORS_ONLN));
    }
    if (!strcmp(mode, "fault")) {
        others_spin(3);
        *(volatile int *)(uintptr_t)(count - 2) = 1;
    }
    if (!strcmp(mode, "spin")) {
        others_spin(3);
        spins(NULL);
    }
    if (!strcmp(mode, "exit")) {
        others_spin(3);
        _exit(3);
    }
    fflush(stdout);
    _exit(0);
}
