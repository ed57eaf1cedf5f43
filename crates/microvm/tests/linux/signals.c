/* Signals that are sent, caused, blocked and timed. What it is told to do last may kill it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int got;
static volatile void *where;
static sigjmp_buf back;

static void note(int signal) { got = signal; }

static void jump(int signal, siginfo_t *info, void *context) {
    (void)context;
    got = signal;
    where = info->si_addr;
    siglongjmp(back, 1);
}

static void repair(int signal, siginfo_t *info, void *context) {
    (void)context;
    got = signal;
    mprotect((void *)((unsigned long)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

static int catches(int signal, void (*fault)(void)) {
    struct sigaction action = {.sa_sigaction = jump, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(signal, &action, 0);
    got = 0;
    if (!sigsetjmp(back, 1)) fault();
    return got == signal;
}

static void null(void) { *(volatile int *)8 = 1; }
static void divide(void) { volatile int one = 1, zero = 0; got = one / zero; }
static void illegal(void) { __builtin_trap(); }
static void readonly(void) { *(volatile char *)(unsigned long)divide = 1; }
static void overflow(void) { volatile char big[100000]; memset((void *)big, 1, sizeof big); overflow(); big[1]++; }

static void *send(void *to) {
    usleep(3000);
    pthread_kill(*(pthread_t *)to, SIGUSR2);
    return 0;
}

int main(int argc, char **argv) {
    static char other[65536];
    stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
    sigaltstack(&stack, 0);

    signal(SIGUSR1, note);
    double kept = 1.5;
    raise(SIGUSR1);
    printf("raised %d %g\n", got == SIGUSR1, kept * 2);

    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    got = 0;
    sigprocmask(SIG_BLOCK, &set, &old);
    raise(SIGUSR1);
    int before = got;
    sigprocmask(SIG_SETMASK, &old, 0);
    printf("blocked %d then %d\n", before == 0, got == SIGUSR1);

    printf("null %d", catches(SIGSEGV, null));
    printf(" at %p\n", (void *)where);
    printf("divide %d\n", catches(SIGFPE, divide));
    printf("illegal %d\n", catches(SIGILL, illegal));
    printf("readonly %d\n", catches(SIGSEGV, readonly));
    printf("overflow %d\n", catches(SIGSEGV, overflow));

    char *page = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction mend = {.sa_sigaction = repair, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &mend, 0);
    page[7] = 'x';
    printf("repaired %c\n", page[7]);

    int ends[2];
    pipe(ends);
    close(ends[0]);
    signal(SIGPIPE, note);
    got = 0;
    long wrote = write(ends[1], "x", 1);
    printf("pipe %d %d %d\n", wrote == -1, errno == EPIPE, got == SIGPIPE);

    signal(SIGALRM, note);
    struct itimerval soon = {.it_value = {.tv_usec = 5000}};
    setitimer(ITIMER_REAL, &soon, 0);
    got = 0;
    while (!got) ;
    printf("alarm in a loop %d\n", got == SIGALRM);
    setitimer(ITIMER_REAL, &soon, 0);
    struct timespec long_time = {100, 0};
    int slept = nanosleep(&long_time, 0);
    printf("interrupted %d %d\n", slept, errno == EINTR);

    struct sigaction restart = {.sa_handler = note, .sa_flags = SA_RESTART};
    sigaction(SIGUSR2, &restart, 0);
    pipe(ends);
    pthread_t self = pthread_self(), sender;
    fcntl(ends[0], F_SETFL, 0);
    pthread_create(&sender, 0, send, &self);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    got = 0;
    pause();
    printf("paused %d\n", got == SIGUSR2);
    pthread_join(sender, 0);

    sigprocmask(SIG_BLOCK, &set, 0);
    pthread_create(&sender, 0, send, &self);
    int signal_number = 0;
    sigwait(&set, &signal_number);
    printf("awaited %d\n", signal_number == SIGUSR2);
    pthread_join(sender, 0);
    fflush(stdout);

    signal(SIGSEGV, SIG_DFL);
    signal(SIGFPE, SIG_DFL);
    if (argc > 1 && !strcmp(argv[1], "abort")) abort();
    if (argc > 1 && !strcmp(argv[1], "null")) null();
    if (argc > 1 && !strcmp(argv[1], "divide")) divide();
    if (argc > 1 && !strcmp(argv[1], "term")) raise(SIGTERM);
    if (argc > 1 && !strcmp(argv[1], "loop")) for (;;) ;
    if (argc > 1 && !strcmp(argv[1], "sleep")) sleep(1000);
    if (argc > 1 && !strcmp(argv[1], "fork")) { int child = fork(); printf("fork %d %d\n", child, errno == ENOSYS); }
    return 0;
}
