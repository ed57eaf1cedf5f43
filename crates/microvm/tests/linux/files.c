/* Files: made, read, mapped, listed, moved, and what the system makes up. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    FILE *file = fopen("/tmp/a", "w+");
    fprintf(file, "line one\nline two\n");
    fseek(file, 5, SEEK_SET);
    char text[64] = {0};
    fgets(text, sizeof text, file);
    printf("read %s", text);
    fclose(file);
    struct stat about;
    stat("/tmp/a", &about);
    printf("size %ld mode %o links %lu\n", about.st_size, about.st_mode, about.st_nlink);
    int descriptor = open("/tmp/a", O_RDWR);
    char *mapped = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
    printf("mapped %.8s", mapped);
    mapped[0] = 'L';
    pread(descriptor, text, 1, 0);
    printf(" file %c\n", text[0]);
    printf("shared %d\n", mmap(0, 4096, PROT_WRITE, MAP_SHARED, descriptor, 0) == MAP_FAILED);
    struct iovec parts[2] = {{"ab", 2}, {"cde", 3}};
    lseek(descriptor, 0, SEEK_END);
    printf("writev %zd\n", writev(descriptor, parts, 2));
    ftruncate(descriptor, 20);
    fstat(descriptor, &about);
    printf("truncated %ld\n", about.st_size);
    mkdir("/tmp/d", 0755);
    rename("/tmp/a", "/tmp/d/b");
    symlink("d/b", "/tmp/l");
    printf("moved %d %d\n", access("/tmp/a", F_OK), access("/tmp/l", R_OK | W_OK));
    chdir("/tmp");
    DIR *listing = opendir(".");
    struct dirent *entry;
    int count = 0;
    while ((entry = readdir(listing))) count++;
    closedir(listing);
    printf("entries %d cwd %s\n", count, getcwd(text, sizeof text));
    int kept = rmdir("d");
    printf("rmdir %d %d\n", kept, errno == ENOTEMPTY);
    unlink("d/b");
    pread(descriptor, text, 4, 0);
    text[4] = 0;
    printf("unlinked %s rmdir %d\n", text, rmdir("d"));
    memset(text, 0, sizeof text);
    readlink("/proc/self/exe", text, sizeof text);
    printf("exe %s\n", text);
    file = fopen("/proc/self/maps", "r");
    int stacks = 0;
    char line[256];
    while (fgets(line, sizeof line, file)) stacks += strstr(line, "[stack]") != 0;
    fclose(file);
    printf("stacks %d\n", stacks);
    int random = open("/dev/urandom", O_RDONLY), zero = open("/dev/zero", O_RDONLY);
    unsigned char bytes[32] = {0}, zeros[32] = {1};
    read(random, bytes, 32);
    read(zero, zeros, 32);
    int differ = 0;
    for (int i = 0; i < 32; i++) differ += bytes[i] != zeros[i];
    printf("random %d\n", differ > 16);
    printf("outside %d\n", open("/etc/shadow", O_RDONLY) == -1 && errno == ENOENT);
    printf("tty %d\n", isatty(0));
    /* A file that is larger than the quota. */
    descriptor = open("/tmp/big", O_WRONLY | O_CREAT, 0600);
    static char chunk[1 << 20];
    long total = 0, wrote;
    while ((wrote = write(descriptor, chunk, sizeof chunk)) > 0) total += wrote;
    printf("quota %d %d\n", total <= 64 << 20, errno == ENOSPC);
    void *huge = malloc(1ul << 40);
    printf("huge %d\n", huge == 0);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    usleep(2000);
    clock_gettime(CLOCK_MONOTONIC, &end);
    long ns = (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec;
    printf("slept %d %d\n", ns >= 2000000, time(0) > 1700000000);
    return 0;
}
