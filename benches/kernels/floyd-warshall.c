// floyd-warshall: all shortest paths of a graph of N nodes, whole lengths. usage: floyd-warshall [N]
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// Takes the detour over the middle node wherever it is shorter.
static void relax(int n, int32_t reach, const int32_t *restrict through, int32_t *restrict row) {
  for (int j = 0; j < n; j++) {
    int32_t detour = reach + through[j];
    row[j] = row[j] < detour ? row[j] : detour;
  }
}

static void shortest_paths(int n, int32_t *length) {
  for (int k = 0; k < n; k++) {
    const int32_t *through = length + (size_t)k * n;
    for (int i = 0; i < n; i++) {
      int32_t *row = length + (size_t)i * n;
      // From k itself there is no detour over k.
      if (i != k) relax(n, row[k], through, row);
    }
  }
}

int main(int argc, char **argv) {
  int n = argc > 1 ? atoi(argv[1]) : 1600;
  if (n < 1 || n > 8192) return 2;
  int32_t *length = malloc((size_t)n * n * sizeof(int32_t));
  if (length == NULL) return 1;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      int joined = (i + j) % 13 == 0 || (i + j) % 7 == 0 || (i + j) % 11 == 0;
      length[(size_t)i * n + j] = i == j ? 0 : joined ? (int32_t)((long)i * j % 7 + 1) : 999;
    }
  shortest_paths(n, length);
  uint64_t sum = 0;
  for (size_t i = 0; i < (size_t)n * n; i++) sum = sum * 31 + (uint64_t)length[i];
  printf("%016llx\n", (unsigned long long)sum);
  return 0;
}
