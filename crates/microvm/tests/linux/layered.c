/* Files that it was deployed with: read before and after its input, written over, removed. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char text[256];

/* What the file holds, or a dash. */
static const char *held(const char *path) {
  int file = open(path, O_RDONLY);
  if (file < 0) return "-";
  ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  text[size < 0 ? 0 : size] = 0;
  return text;
}

static void put(const char *path, const char *what) {
  FILE *file = fopen(path, "w");
  if (file == NULL) exit(3);
  fputs(what, file);
  fclose(file);
}

static int by_name(const void *one, const void *two) {
  return strcmp(*(char *const *)one, *(char *const *)two);
}

static void list(const char *path) {
  char *names[16];
  size_t count = 0;
  DIR *folder = opendir(path);
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
    if (entry->d_name[0] != '.' && count < 16) names[count++] = strdup(entry->d_name);
  closedir(folder);
  qsort(names, count, sizeof *names, by_name);
  for (size_t at = 0; at < count; at++) printf(" %s", names[at]);
  printf("\n");
}

int main(void) {
  char first[256], body[64];
  strcpy(first, held("/data/greeting"));
  int kept = open("/data/more/leaf", O_RDONLY);
  char *mapped = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, kept, 0);
  put("/data/prepared", "at its start");
  ssize_t size = read(0, body, sizeof body - 1);
  body[size < 0 ? 0 : size] = 0;
  if (strcmp(body, "write") == 0) {
    put("/data/greeting", "secret");
    put("/data/prepared", "secret");
    put("/data/canary", "secret");
    if (unlink("/data/more/leaf") || rename("/link", "/moved")) return 4;
  }
  char leaf[16] = {0};
  pread(kept, leaf, sizeof leaf - 1, 0);
  printf("first %s\nnow %s\n", first, held("/data/greeting"));
  printf("kept %s mapped %.4s\n", leaf, mapped);
  printf("prepared %s\n", held("/data/prepared"));
  printf("link %s\n", held("/link"));
  printf("hosts %s\n", held("/etc/hosts"));
  printf("group %s", held("/etc/group"));
  printf("runs %d %d\n", access("/data/greeting", X_OK), access("/tool", X_OK));
  printf("data");
  list("/data");
  printf("more");
  list("/data/more");
  return 0;
}
