// heat-3d: the heat equation on an N x N x N grid, by explicit steps. usage: heat-3d [N]
#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 60 };

static void step(int n, const double *restrict from, double *restrict to) {
  size_t layer = (size_t)n * n;
  for (int i = 1; i < n - 1; i++)
    for (int j = 1; j < n - 1; j++) {
      const double *row = from + i * layer + (size_t)j * n;
      double *out = to + i * layer + (size_t)j * n;
      for (int k = 1; k < n - 1; k++)
        out[k] = 0.125 * (row[k + layer] - 2.0 * row[k] + row[k - layer]) +
                 0.125 * (row[k + n] - 2.0 * row[k] + row[k - n]) +
                 0.125 * (row[k + 1] - 2.0 * row[k] + row[k - 1]) + row[k];
    }
}

int main(int argc, char **argv) {
  int n = argc > 1 ? atoi(argv[1]) : 160;
  if (n < 3 || n > 512) return 2;
  size_t count = (size_t)n * n * n;
  double *a = malloc(count * sizeof(double)), *b = malloc(count * sizeof(double));
  if (a == NULL || b == NULL) return 1;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      for (int k = 0; k < n; k++) {
        size_t at = ((size_t)i * n + j) * n + k;
        a[at] = b[at] = (double)(i + j + (n - k)) * 10 / n;
      }
  for (int pair = 0; pair < STEPS; pair++) {
    step(n, a, b);
    step(n, b, a);
  }
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += a[i];
  printf("%.6f\n", sum);
  return 0;
}
