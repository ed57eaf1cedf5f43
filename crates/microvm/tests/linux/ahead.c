/* What a program may be answered without leaving its machine, and what it finds after: see ahead.rs. The first argument
 * says which. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
/* Where the code that `syscall` enters lies, and its pages. */
#define STUB 0x1FFE06000ul
#define STUB_DATA 0x1FFE12000ul

static void say(const char *text) { write(1, text, strlen(text)); }

/* The reply, the log, files and pipes get what is written to them, whatever descriptor 1 was before. */
static int order(void) {
  int ends[2], saved = dup(1), file = open("/tmp/f", O_RDWR | O_CREAT, 0644);
  char text[64] = {0};
  pipe(ends);
  say("one ");
  write(2, "log ", 4);
  say("two ");
  dup2(file, 1);
  say("filed");
  dup2(ends[1], 1);
  say("piped");
  dup2(saved, 1);
  lseek(file, 0, SEEK_SET);
  read(file, text, 63);
  say(text);
  memset(text, 0, sizeof text);
  read(ends[0], text, 63);
  say(text);
  close(1);
  if (write(1, "lost", 4) != -1 || errno != EBADF) return 2;
  dup2(saved, 1);
  say(" end");
  return 0;
}

/* Descriptor 0 at its end, over and over, and as something else. */
static int ends(void) {
  int pipes[2], got = 0, zeros = 0;
  char text[64];
  for (int i = 0; i < 10; i++) {
    int count = read(0, text, 2);
    got += count;
    zeros += count == 0;
  }
  int rest = read(0, text, 64);
  pipe(pipes);
  write(pipes[1], "pipe", 4);
  dup2(pipes[0], 0);
  int piped = read(0, text, 64);
  printf("%d %d %d %d\n", got, zeros, rest, piped);
  return 0;
}

/* Writes of every size, from places that are not there yet, or not at all. */
static int sizes(void) {
  unsigned long sum = 0;
  char *far = mmap(0, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int size = 0; size < 20000; size += 97) {
    for (int i = 0; i < size; i++) far[i] = 'a' + (size + i) % 26;
    if (write(1, far, size) != size) return 2;
    sum += size;
  }
  munmap(far + 32 * PAGE, 32 * PAGE);
  if (write(1, far + 20 * PAGE, PAGE) != PAGE) return 3;
  if (write(1, far + 32 * PAGE, 5) != -1 || errno != EFAULT) return 4;
  if (write(1, (void *)8, 5) != -1 || errno != EFAULT) return 5;
  if (write(1, (void *)-8, 5) != -1 || errno != EFAULT) return 6;
  if (write(1, far, 0) != 0 || write(1, 0, 0) != 0) return 7;
  fprintf(stderr, "%lu", sum + PAGE);
  return 0;
}

static sigjmp_buf back;
static char *volatile on;

static void jumps(int signal) {
  char here;
  on = &here;
  if (signal == SIGSEGV) siglongjmp(back, 1);
}

/* A signal stack as Rust's standard library has one, given up as it does. */
static int stacks(void) {
  char *mapping = mmap(0, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t stack = {.ss_sp = mapping + PAGE, .ss_size = 4 * PAGE}, none = {.ss_flags = SS_DISABLE}, old;
  struct sigaction action = {.sa_handler = jumps, .sa_flags = SA_ONSTACK | SA_NODEFER};
  sigaction(SIGUSR1, &action, 0);
  sigaction(SIGSEGV, &action, 0);
  mprotect(mapping, PAGE, PROT_NONE);
  mapping[2 * PAGE] = 7;
  if (sigaltstack(&stack, 0)) return 2;
  raise(SIGUSR1);
  int within = on > mapping && on < mapping + 5 * PAGE;
  if (sigaltstack((void *)8, 0) != -1 || errno != EFAULT) return 3;
  if (sigaltstack(&none, 0)) return 4;
  raise(SIGUSR1);
  int outside = on < mapping || on > mapping + 5 * PAGE;
  if (sigaltstack(&stack, 0) || sigaltstack(&none, 0) || sigaltstack(0, &old)) return 5;
  printf("within %d outside %d flags %d\n", within, outside, old.ss_flags);
  sigaltstack(&stack, 0);
  sigaltstack(&none, 0);
  munmap(mapping, 5 * PAGE);
  getppid();
  int faulted = sigsetjmp(back, 1);
  if (!faulted) printf("still %d\n", mapping[2 * PAGE]);
  /* The place is free for what comes next, and that is zero. */
  char *again = mmap(mapping, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  printf("faulted %d again %d value %d\n", faulted, again == mapping, again[2 * PAGE]);
  fflush(stdout);
  sigaltstack(&stack, 0);
  sigaltstack(&none, 0);
  munmap(mapping, 5 * PAGE);
  again = mmap(mapping, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  printf("free %d\n", again == mapping);
  return 0;
}

/* A call leaves all registers alone but rax, rcx and r11, and all flags. */
static long registers(long number, long first, const void *second, long third, unsigned long flags[2]) {
  register long r12 __asm__("r12") = 0x1212, r15 __asm__("r15") = 0x1515;
  register long r8 __asm__("r8") = 8, r9 __asm__("r9") = 9, r10 __asm__("r10") = 10;
  long result, rdi = first, rdx = third, rbx = 0xbb;
  const void *rsi = second;
  unsigned long after, left;
  __asm__ volatile(
      "sub $256, %%rsp\n movq $0x7777, -8(%%rsp)\n push %[flags]\n popfq\n"
      "syscall\n"
      "pushfq\n pop %[after]\n mov %%r11, %[left]\n add $256, %%rsp"
      : "=a"(result), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+b"(rbx), [after] "=&r"(after), [left] "=&r"(left), "+r"(r8),
        "+r"(r9), "+r"(r10), "+r"(r12), "+r"(r15)
      : "a"(number), [flags] "r"(flags[0])
      : "rcx", "r11", "memory", "cc");
  flags[0] = after, flags[1] = left;
  if (rdi != first || rsi != second || rdx != third || rbx != 0xbb || r8 != 8 || r9 != 9 || r10 != 10) return -1000;
  if (r12 != 0x1212 || r15 != 0x1515) return -1001;
  return result;
}

static int keeps(void) {
  char text[8];
  while (read(0, text, sizeof text) > 0) continue;
  strcpy(text, "x\n");
  /* Carry, parity, adjust, zero, sign, overflow; and an alignment check, an id. */
  for (unsigned long bits = 0; bits < 64; bits++) {
    unsigned long arithmetic = (bits & 1) | (bits & 2) << 1 | (bits & 4) << 2 | (bits & 8) << 3 | (bits & 16) << 3 |
                               (bits & 32) << 6 | 0x202;
    for (int which = 0; which < 3; which++) {
      unsigned long flags[2] = {arithmetic | (which == 2 ? 0x400 : 0)};
      long number = which != 1, expected = 2 * number;
      long result = registers(number, number, text, 2, flags);
      if (result != expected) return 2;
      if ((flags[0] & ~0x200ul) != ((arithmetic & ~0x200ul) | (which == 2 ? 0x400 : 0))) {
        __asm__ volatile("cld");
        return 3;
      }
      __asm__ volatile("cld");
    }
  }
  return 0;
}

/* Writes and reads of several parts, and what is no terminal. */
static int parts(void) {
  static char large[20000];
  struct iovec all[12], bad[3] = {{"x", 1}, {(void *)8, 1}, {"y", 1}}, two[2] = {{large, 12000}, {large, 12000}};
  struct winsize size;
  char text[8];
  for (int count = 0; count <= 12; count++) {
    long sum = 0;
    for (int i = 0; i < count; i++) {
      all[i].iov_base = "abcdefghijklmnop" + i, all[i].iov_len = i % 4;
      sum += i % 4;
    }
    unsigned long flags[2] = {0x202};
    if (registers(20, 1, all, count, flags) != sum) return 2;
    say("|");
  }
  if (writev(1, bad, 3) != -1 || errno != EFAULT) return 3;
  if (writev(1, (void *)8, 1) != -1 || errno != EFAULT) return 4;
  if (writev(1, all, -1) != -1 || errno != EINVAL) return 5;
  memset(large, '.', sizeof large);
  if (writev(1, two, 2) != 24000 || writev(1, two, 1) != 12000) return 6;
  if (ioctl(1, TIOCGWINSZ, &size) != -1 || errno != ENOTTY || isatty(1) || isatty(0)) return 7;
  while (read(0, text, sizeof text) > 0) continue;
  bad[0].iov_base = text;
  for (int i = 0; i < 12; i++) all[i].iov_base = text;
  if (readv(0, bad, 1) != 0 || readv(0, all, 9) != 0 || readv(0, bad, 0) != 0) return 8;
  if (readv(0, (void *)8, 1) != -1 || errno != EFAULT) return 9;
  return 0;
}

static void *counts(void *name) {
  char line[16];
  for (int i = 0; i < 20000; i++) {
    snprintf(line, sizeof line, "%s%06d\n", (char *)name, i);
    if (write(1, line, 8) != 8) _exit(9);
  }
  return 0;
}

/* Threads that are stopped anywhere. */
static int threads(void) {
  pthread_t all[3];
  char *names[] = {"a", "b", "c"};
  for (int i = 0; i < 3; i++) pthread_create(&all[i], 0, counts, names[i]);
  for (int i = 0; i < 3; i++) pthread_join(all[i], 0);
  return 0;
}

static volatile long spun;

static int dies(const char *how) {
  say("said before");
  if (!strcmp(how, "null")) *(volatile int *)8 = 1;
  if (!strcmp(how, "abort")) abort();
  if (!strcmp(how, "trap")) __builtin_trap();
  if (!strcmp(how, "port")) __asm__ volatile("out %%eax, $0xd0" ::"a"(1));
  if (!strcmp(how, "_exit")) _exit(0);
  if (!strcmp(how, "thread")) pthread_exit(0);
  for (;;) spun++;
}

/* Tells the host what is not so. */
static int lies(int with) {
  memset((void *)STUB_DATA, with, 4 * PAGE);
  for (int i = 0; i < 100; i++) {
    char byte;
    read(0, &byte, 1);
    write(1, "x", 1);
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, 0);
    munmap((void *)STUB_DATA, PAGE);
    memset((void *)STUB_DATA, with, PAGE);
  }
  return 0;
}

/* Goes to the middle of that code. */
static int enters(long at) {
  __asm__ volatile("mov $1, %%eax\n mov $1, %%edi\n mov %0, %%rsi\n mov $1, %%edx\n lea 1f(%%rip), %%rcx\n"
                   "pushfq\n pop %%r11\n jmp *%1\n 1: nop"
                   :
                   : "r"("y"), "r"(STUB + at)
                   : "rax", "rdi", "rsi", "rdx", "rcx", "r11", "memory", "cc");
  return 0;
}

int main(int count, char **args) {
  const char *which = args[1], *how = count > 2 ? args[2] : "";
  if (!strcmp(which, "order")) return order();
  if (!strcmp(which, "ends")) return ends();
  if (!strcmp(which, "sizes")) return sizes();
  if (!strcmp(which, "stacks")) return stacks();
  if (!strcmp(which, "keeps")) return keeps();
  if (!strcmp(which, "parts")) return parts();
  if (!strcmp(which, "threads")) return threads();
  if (!strcmp(which, "dies")) return dies(how);
  if (!strcmp(which, "lies")) return lies(atoi(how));
  if (!strcmp(which, "enters")) return enters(atol(how));
  return 99;
}
