// jacobi-2d: a five-point stencil swept back and forth over an N x N grid. usage: jacobi-2d [N]
#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 300 };

static void sweep(int n, const double *restrict from, double *restrict to) {
  for (int i = 1; i < n - 1; i++) {
    const double *row = from + (size_t)i * n;
    double *out = to + (size_t)i * n;
    for (int j = 1; j < n - 1; j++)
      out[j] = 0.2 * (row[j] + row[j - 1] + row[j + 1] + row[j + n] + row[j - n]);
  }
}

int main(int argc, char **argv) {
  int n = argc > 1 ? atoi(argv[1]) : 1300;
  if (n < 3 || n > 16384) return 2;
  size_t bytes = (size_t)n * n * sizeof(double);
  double *a = malloc(bytes), *b = malloc(bytes);
  if (a == NULL || b == NULL) return 1;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      a[(size_t)i * n + j] = ((double)i * (j + 2) + 2) / n;
      b[(size_t)i * n + j] = ((double)i * (j + 3) + 3) / n;
    }
  for (int step = 0; step < STEPS; step++) {
    sweep(n, a, b);
    sweep(n, b, a);
  }
  double sum = 0;
  for (size_t i = 0; i < (size_t)n * n; i++) sum += a[i];
  printf("%.6f\n", sum);
  return 0;
}
