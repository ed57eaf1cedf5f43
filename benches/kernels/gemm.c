// gemm: C = alpha A B + beta C on N x N matrices of doubles. usage: gemm [N]
#include <stdio.h>
#include <stdlib.h>

static void fill(double *restrict matrix, int n, int salt) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      matrix[(size_t)i * n + j] = (double)(((long)i * j + salt) % n) / n;
}

static void gemm(int n, double alpha, double beta, const double *restrict a,
                 const double *restrict b, double *restrict c) {
  for (int i = 0; i < n; i++) {
    double *row = c + (size_t)i * n;
    for (int j = 0; j < n; j++) row[j] *= beta;
    for (int k = 0; k < n; k++) {
      double scale = alpha * a[(size_t)i * n + k];
      const double *from = b + (size_t)k * n;
      for (int j = 0; j < n; j++) row[j] += scale * from[j];
    }
  }
}

int main(int argc, char **argv) {
  int n = argc > 1 ? atoi(argv[1]) : 1600;
  if (n < 1 || n > 8192) return 2;
  size_t bytes = (size_t)n * n * sizeof(double);
  double *a = malloc(bytes), *b = malloc(bytes), *c = malloc(bytes);
  if (a == NULL || b == NULL || c == NULL) return 1;
  fill(a, n, 1);
  fill(b, n, 2);
  fill(c, n, 3);
  gemm(n, 1.5, 1.2, a, b, c);
  double sum = 0;
  for (size_t i = 0; i < (size_t)n * n; i++) sum += c[i];
  printf("%.6f\n", sum);
  return 0;
}
