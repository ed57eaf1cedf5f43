/* Threads that share counters by mutexes, conditions, spinning and barriers; and far too many. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long counter, turn;
static volatile int go;
static __thread int own;

static void *count(void *arg) {
    own = (int)(long)arg;
    for (int i = 0; i < 10000; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
    }
    return (void *)(long)own;
}

static void *ping(void *arg) {
    long me = (long)arg;
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&lock);
        while (turn != me) pthread_cond_wait(&changed, &lock);
        turn = 1 - me;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

static void *spin(void *arg) {
    (void)arg;
    while (!go) ;
    return 0;
}

static void *sleepy(void *arg) {
    pthread_mutex_lock(&lock);
    while (!go) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return arg;
}

static double work(void) {
    double sum = 0;
    for (int i = 1; i < 3000000; i++) sum += 1.0 / i;
    return sum;
}

static void *floats(void *arg) {
    *(double *)arg = work();
    return 0;
}

static void took(const char *what) {
    static struct timespec last;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (last.tv_sec)
        fprintf(stderr, "%s %ld us\n", what,
                (now.tv_sec - last.tv_sec) * 1000000 + (now.tv_nsec - last.tv_nsec) / 1000);
    last = now;
}

int main(void) {
    pthread_t threads[16];
    took("");
    for (long i = 0; i < 16; i++) pthread_create(&threads[i], 0, count, (void *)i);
    long sum = 0;
    for (int i = 0; i < 16; i++) {
        void *result;
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    printf("%ld %ld\n", counter, sum);
    took("count");

    pthread_create(&threads[0], 0, ping, (void *)0);
    pthread_create(&threads[1], 0, ping, (void *)1);
    pthread_join(threads[0], 0);
    pthread_join(threads[1], 0);
    printf("turn %ld\n", turn);
    took("400 turns");

    /* A thread that spins must not keep the one that it waits for from running. */
    pthread_create(&threads[0], 0, spin, 0);
    usleep(1000);
    go = 1;
    pthread_join(threads[0], 0);
    go = 0;
    took("spin");

    /* Vector registers are a thread's own. */
    double expected = work(), results[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, floats, &results[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < 4; i++) if (results[i] != expected) printf("wrong %d\n", i);

    took("floats");
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 5000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&lock);
    int waited = pthread_cond_timedwait(&changed, &lock, &until);
    pthread_mutex_unlock(&lock);
    printf("timed out %d\n", waited == ETIMEDOUT);
    took("timed wait");

    int made = 0, refused = 0;
    static pthread_t many[10000];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    for (int i = 0; i < 10000; i++) {
        int error = pthread_create(&many[made], &attr, sleepy, 0);
        if (error == 0) made++;
        else if (error == EAGAIN) refused++;
        else printf("other error %d\n", error);
    }
    took("10000 threads asked for");
    pthread_mutex_lock(&lock);
    go = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < made; i++) pthread_join(many[i], 0);
    took("joined");
    printf("made some %d, refused some %d\n", made > 100, refused > 0);
    return 0;
}
