// Uses files as programs do: stdio, directories, renames, links, truncation, times. Says `ok`, or
// where it found something else than POSIX promises, and exits with 1.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what)                                                                        \
  do {                                                                                     \
    if (!(what)) {                                                                         \
      printf("line %d: %s (%s)\n", __LINE__, #what, strerror(errno));                      \
      exit(1);                                                                             \
    }                                                                                      \
  } while (0)
#define FAILS(call, error) CHECK((call) == -1 && errno == (error))

static void put(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  CHECK(file);
  CHECK(fputs(text, file) >= 0);
  CHECK(fclose(file) == 0);
}

static const char *get(const char *path) {
  static char text[4096];
  FILE *file = fopen(path, "r");
  if (!file) return NULL;
  size_t count = fread(text, 1, sizeof text - 1, file);
  text[count] = 0;
  fclose(file);
  return text;
}

static int holds(const char *path, const char *text) {
  const char *found = get(path);
  return found && strcmp(found, text) == 0;
}

static void streams(void) {
  put("a", "hello");
  CHECK(holds("a", "hello"));
  FILE *file = fopen("a", "a+");
  CHECK(file && fputs(" world", file) >= 0 && fclose(file) == 0);
  CHECK(holds("a", "hello world"));
  file = fopen("a", "r+");
  CHECK(file && fseek(file, 6, SEEK_SET) == 0 && fputs("W", file) >= 0);
  CHECK(fseek(file, -1, SEEK_END) == 0 && fgetc(file) == 'd' && ftell(file) == 11);
  CHECK(fclose(file) == 0 && holds("a", "hello World"));
  CHECK(!fopen("a/b", "r") && errno == ENOTDIR);
  CHECK(!fopen("none", "r") && errno == ENOENT);
  CHECK(!fopen("a", "wx") && errno == EEXIST);
  CHECK(freopen("a", "w", fopen("a", "r")) && holds("a", ""));
  CHECK(remove("a") == 0 && !get("a"));
}

static void descriptors(void) {
  int fd = open("f", O_RDWR | O_CREAT | O_EXCL, 0600);
  CHECK(fd > 2);
  CHECK(write(fd, "0123456789", 10) == 10 && lseek(fd, 0, SEEK_CUR) == 10);
  char text[16] = {0};
  CHECK(pread(fd, text, 4, 3) == 4 && memcmp(text, "3456", 4) == 0);
  CHECK(pwrite(fd, "xy", 2, 20) == 2 && lseek(fd, 0, SEEK_END) == 22);
  CHECK(pread(fd, text, 12, 10) == 12 && memcmp(text, "\0\0\0\0\0\0\0\0\0\0xy", 12) == 0);
  CHECK(ftruncate(fd, 5) == 0 && lseek(fd, 0, SEEK_END) == 5);
  CHECK(ftruncate(fd, 8) == 0 && pread(fd, text, 8, 0) == 8 && memcmp(text, "01234\0\0\0", 8) == 0);
  CHECK(posix_fallocate(fd, 0, 100) == 0 && lseek(fd, 0, SEEK_END) == 100);
  FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
  CHECK(fsync(fd) == 0 && fdatasync(fd) == 0);
  struct stat before, after;
  CHECK(fstat(fd, &before) == 0 && S_ISREG(before.st_mode) && before.st_nlink == 1);
  CHECK(unlink("f") == 0 && pread(fd, text, 5, 0) == 5 && memcmp(text, "01234", 5) == 0);
  CHECK(fstat(fd, &after) == 0 && after.st_nlink == 0 && after.st_ino == before.st_ino);
  CHECK(close(fd) == 0);
  FAILS(read(fd, text, 1), EBADF);
  CHECK((fd = open("r", O_RDONLY | O_CREAT, 0600)) > 2);
  FAILS(write(fd, "x", 1), EBADF);
  CHECK(close(fd) == 0 && unlink("r") == 0);
}

static void directories(void) {
  CHECK(mkdir("d", 0755) == 0 && mkdir("d/e", 0755) == 0);
  FAILS(mkdir("d", 0755), EEXIST);
  FAILS(mkdir("none/d", 0755), ENOENT);
  char name[32];
  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "d/file-%03d", i);
    put(name, name);
  }
  int seen = 0, removed = 0;
  DIR *dir = opendir("d");
  CHECK(dir);
  for (struct dirent *entry; (entry = readdir(dir));) {
    if (strncmp(entry->d_name, "file-", 5) == 0) {
      seen++;
      CHECK(entry->d_type == DT_REG);
      if (atoi(entry->d_name + 5) % 2) {
        snprintf(name, sizeof name, "d/%s", entry->d_name);
        CHECK(unlink(name) == 0);
        removed++;
      }
    } else if (strcmp(entry->d_name, "e") == 0) {
      CHECK(entry->d_type == DT_DIR);
    }
  }
  CHECK(closedir(dir) == 0 && seen == 300 && removed == 150);
  FAILS(rmdir("d"), ENOTEMPTY);
  FAILS(unlink("d/e"), EISDIR);
  for (int i = 0; i < 300; i += 2) {
    snprintf(name, sizeof name, "d/file-%03d", i);
    CHECK(unlink(name) == 0);
  }
  CHECK(rmdir("d/e") == 0 && rmdir("d") == 0);
  FAILS(rmdir("d"), ENOENT);
}

static void names(void) {
  put("one", "1");
  put("two", "2");
  CHECK(rename("one", "two") == 0 && !get("one") && holds("two", "1"));
  CHECK(mkdir("x", 0755) == 0 && mkdir("y", 0755) == 0);
  CHECK(rename("two", "x/three") == 0 && holds("x/three", "1"));
  FAILS(rename("x/three", "y"), EISDIR);
  FAILS(rename("y", "x/three"), ENOTDIR);
  FAILS(rename("y", "x"), ENOTEMPTY);
  FAILS(rename("x", "x/in"), EINVAL);
  CHECK(rename("x", "y") == 0 && holds("y/three", "1"));
  CHECK(link("y/three", "four") == 0 && holds("four", "1"));
  struct stat one, other;
  CHECK(stat("four", &one) == 0 && stat("y/three", &other) == 0);
  CHECK(one.st_ino == other.st_ino && one.st_nlink == 2);
  FAILS(link("four", "y/three"), EEXIST);
  CHECK(unlink("y/three") == 0 && holds("four", "1"));
  CHECK(symlink("four", "to-four") == 0 && holds("to-four", "1"));
  char target[16] = {0};
  CHECK(readlink("to-four", target, sizeof target) == 4 && strcmp(target, "four") == 0);
  CHECK(lstat("to-four", &one) == 0 && S_ISLNK(one.st_mode));
  FAILS(open("to-four", O_RDONLY | O_NOFOLLOW), ELOOP);
  CHECK(symlink("loop", "loop") == 0);
  FAILS(open("loop", O_RDONLY), ELOOP);
  CHECK(unlink("loop") == 0 && unlink("to-four") == 0 && unlink("four") == 0 && rmdir("y") == 0);
}

static void times(void) {
  put("t", "");
  struct timespec set[2] = {{.tv_sec = 1000, .tv_nsec = 5}, {.tv_sec = 2000, .tv_nsec = 7}};
  CHECK(utimensat(AT_FDCWD, "t", set, 0) == 0);
  struct stat found;
  CHECK(stat("t", &found) == 0 && found.st_atim.tv_sec == 1000 && found.st_mtim.tv_nsec == 7);
  CHECK(unlink("t") == 0);
}

static void polling(void) {
  int fd = open("p", O_RDWR | O_CREAT, 0600);
  struct pollfd wanted = {.fd = fd, .events = POLLIN | POLLOUT};
  CHECK(fd > 2 && poll(&wanted, 1, 1000) == 1 && (wanted.revents & POLLOUT));
  struct timespec short_time = {.tv_nsec = 1000000};
  CHECK(nanosleep(&short_time, NULL) == 0);
  CHECK(close(fd) == 0 && unlink("p") == 0);
}

int main(void) {
  streams();
  descriptors();
  directories();
  names();
  times();
  polling();
  puts("ok");
  return 0;
}
