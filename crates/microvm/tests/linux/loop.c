/* What a process prepares before it waits for its input, and what it finds after: see
 * request_loop.rs. The first argument says which. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int counter;
static char body[4096];

static unsigned long long now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void random_hex(const char *name) {
  unsigned char bytes[32];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) _exit(40);
  printf("%s ", name);
  for (unsigned i = 0; i < sizeof bytes; i++) printf("%02x", bytes[i]);
  printf("\n");
}

static int read_all(void) {
  int have = 0, got;
  while ((got = read(0, body + have, sizeof body - 1 - have)) > 0) have += got;
  if (got < 0) _exit(41);
  return have;
}

/* Memory, files, pipes, descriptors: each call finds them as they were frozen. */
static int plain(void) {
  int ends[2], other[2];
  unsigned char at_start[16];
  double third = 1.0 / 3;
  memcpy(at_start, (void *)getauxval(AT_RANDOM), sizeof at_start);
  if (pipe(ends) || socketpair(AF_UNIX, SOCK_STREAM, 0, other)) return 42;
  int file = open("/tmp/notes", O_RDWR | O_CREAT, 0644);
  if (file < 0 || write(file, "init;", 5) != 5 || write(ends[1], "piped;", 6) != 6) return 43;
  if (write(other[0], "sent;", 5) != 5 || unlink("/tmp/notes") || mkdir("/tmp/made", 0700)) return 44;
  char *heap = calloc(1, 1 << 20);
  strcpy(heap + 500000, "heap");
  counter = 7;
  unsigned long long before = now(CLOCK_MONOTONIC);
  int tid = syscall(SYS_gettid);
  fprintf(stderr, "prepared\n");
  read_all();
  char text[64] = {0};
  counter++;
  if (write(file, body, strlen(body)) < 0 || write(ends[1], body, strlen(body)) < 0) return 45;
  lseek(file, 0, SEEK_SET);
  printf("%d %s %d\n", counter, heap + 500000, third == 1.0 / 3);
  strcpy(heap + 500000, "lost");
  if (read(file, text, 63) < 0) return 46;
  printf("%s ", text);
  memset(text, 0, sizeof text);
  if (read(ends[0], text, 63) < 0) return 47;
  printf("%s ", text);
  memset(text, 0, sizeof text);
  if (read(other[1], text, 63) < 0) return 48;
  printf("%s\n", text);
  int made = mkdir("/tmp/made", 0700), again = mkdir("/tmp/again", 0700);
  printf("%d %d %d\n", made, again, now(CLOCK_MONOTONIC) >= before);
  printf("%d %d\n", tid == syscall(SYS_gettid), getpid());
  printf("new %d\n", memcmp(at_start, (void *)getauxval(AT_RANDOM), sizeof at_start) != 0);
  return 0;
}

static int looks(void) {
  struct pollfd one = {.fd = 0, .events = POLLIN};
  int ready = poll(&one, 1, 0), left = -1;
  printf("poll %d %d\n", ready, one.revents);
  fd_set set;
  struct timeval none = {0};
  FD_ZERO(&set);
  FD_SET(0, &set);
  ready = select(1, &set, 0, 0, &none);
  printf("select %d\n", ready);
  ioctl(0, FIONREAD, &left);
  printf("left %d\n", left);
  fcntl(0, F_SETFL, O_NONBLOCK);
  printf("read %d\n", (int)read(0, body, 3));
  return 0;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn;
static __thread int own;

static void *waits(void *number) {
  own = (int)(long)number;
  double tenth = own / 10.0;
  pthread_mutex_lock(&lock);
  while (turn != own) pthread_cond_wait(&turned, &lock);
  printf("thread %d %.1f\n", own, tenth);
  turn++;
  pthread_cond_broadcast(&turned);
  pthread_mutex_unlock(&lock);
  return NULL;
}

static void *reads(void *nothing) {
  read_all();
  pthread_mutex_lock(&lock);
  turn = 1;
  pthread_cond_broadcast(&turned);
  pthread_mutex_unlock(&lock);
  return nothing;
}

static int threads(void) {
  pthread_t all[4], reader;
  for (long i = 0; i < 4; i++) pthread_create(&all[i], NULL, waits, (void *)(i + 1));
  pthread_create(&reader, NULL, reads, NULL);
  for (int i = 0; i < 4; i++) pthread_join(all[i], NULL);
  pthread_join(reader, NULL);
  printf("%s\n", body);
  return 0;
}

/* An event loop that does work of its own first, and is frozen in the middle of a timer. */
static int events(void) {
  int loop = epoll_create1(0), event = eventfd(0, 0);
  int timer = timerfd_create(CLOCK_MONOTONIC, 0);
  struct itimerspec every = {.it_value.tv_nsec = 200000000};
  struct epoll_event one = {.events = EPOLLIN};
  timerfd_settime(timer, 0, &every, NULL);
  for (int i = 0; i < 3; i++) {
    one.data.fd = (int[]){0, event, timer}[i];
    if (epoll_ctl(loop, EPOLL_CTL_ADD, one.data.fd, &one)) return 50;
  }
  unsigned long long word = 1;
  if (write(event, &word, 8) != 8) return 51;
  int have = 0;
  for (;;) {
    struct epoll_event told[4];
    int count = epoll_wait(loop, told, 4, 5000);
    if (count <= 0) return 52;
    for (int i = 0; i < count; i++) {
      int fd = told[i].data.fd;
      if (fd == 0) {
        int got = read(0, body + have, 100);
        if (got == 0) epoll_ctl(loop, EPOLL_CTL_DEL, 0, NULL);
        if (got == 0) printf("end %s\n", body);
        have += got > 0 ? got : 0;
        continue;
      }
      if (read(fd, &word, 8) != 8) return 53;
      printf("%s\n", fd == event ? "event" : "timer");
      if (fd == timer) return 0;
    }
  }
}

static int goes_out(void) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
  inet_pton(AF_INET, "127.0.0.9", &to.sin_addr);
  int out = socket(AF_INET, SOCK_DGRAM, 0);
  int made = connect(out, (struct sockaddr *)&to, sizeof to);
  close(out);
  read_all();
  printf("%d\n", made);
  return 0;
}

static volatile sig_atomic_t alarms;
static void alarmed(int signal) { alarms += signal == SIGALRM; }

static int alarm_first(void) {
  struct sigaction action = {.sa_handler = alarmed, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  sigprocmask(SIG_BLOCK, &mask, NULL);
  raise(SIGUSR1);
  ualarm(100000, 0);
  read_all();
  while (!alarms) pause();
  sigset_t pending;
  sigpending(&pending);
  printf("%d %d\n", (int)alarms, sigismember(&pending, SIGUSR1));
  return 0;
}

static int variables(void) {
  const char *names[] = {"BOTH", "ONE", "OWN"};
  for (int i = 0; i < 3; i++) {
    const char *value = getenv(names[i]);
    printf("%s%c", value ? value : "none", i == 2 ? '\n' : ' ');
  }
  return 0;
}

int main(int count, char **args) {
  const char *mode = count > 1 ? args[1] : "";
  setvbuf(stdout, NULL, _IOFBF, 1 << 14);
  if (!strcmp(mode, "plain")) return plain();
  if (!strcmp(mode, "looks")) return looks();
  if (!strcmp(mode, "threads")) return threads();
  if (!strcmp(mode, "events")) return events();
  if (!strcmp(mode, "out")) return goes_out();
  if (!strcmp(mode, "alarm")) return alarm_first();
  if (!strcmp(mode, "end")) return 3;
  for (volatile int spins = 0; !strcmp(mode, "spin");) spins++;
  if (!strcmp(mode, "reply")) write(1, "begun ", 6);
  if (!strcmp(mode, "time")) printf("then %llu\n", now(CLOCK_REALTIME));
  if (!strcmp(mode, "random")) random_hex("then");
  if (!strcmp(mode, "both")) random_hex("then"), printf("before %llu\n", now(CLOCK_REALTIME));
  if (!strcmp(mode, "getenv")) variables();
  read_all();
  if (!strcmp(mode, "getenv")) return variables();
  if (!strcmp(mode, "both")) random_hex("fresh"), printf("now %llu\n", now(CLOCK_REALTIME));
  printf("%s", body);
  for (int i = 2; i < count; i++) printf(" %s", args[i]);
  return 0;
}
