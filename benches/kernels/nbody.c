// nbody: N thousand symplectic steps of the sun and its giant planets. usage: nbody [N]
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DAYS 365.24
#define SUN (4 * 3.141592653589793 * 3.141592653589793)

enum { BODIES = 5 };

struct body {
  double x[3], v[3], mass;
};

// Positions in astronomical units, velocities in units a year, masses in suns times SUN.
static struct body system_[BODIES] = {
    {{0, 0, 0}, {0, 0, 0}, SUN},
    {{4.84143144246472090, -1.16032004402742839, -0.103622044471123109},
     {0.00166007664274403694 * DAYS, 0.00769901118419740425 * DAYS, -0.0000690460016972063023 * DAYS},
     0.000954791938424326609 * SUN},
    {{8.34336671824457987, 4.12479856412430479, -0.403523417114321381},
     {-0.00276742510726411 * DAYS, 0.00499852801234917238 * DAYS, 0.0000230417297573763929 * DAYS},
     0.000285885980666130812 * SUN},
    {{12.8943695621391310, -15.1111514016986312, -0.223307578892655734},
     {0.00296460137564761618 * DAYS, 0.00237847173959480950 * DAYS, -0.0000296589568540237556 * DAYS},
     0.0000436624404335156298 * SUN},
    {{15.3796971148509165, -25.9193146099879641, 0.179258772950371181},
     {0.00268067772490389322 * DAYS, 0.00162824170038242295 * DAYS, -0.0000951592254519715870 * DAYS},
     0.0000515138902046611451 * SUN},
};

static void advance(struct body *bodies, double dt) {
  for (int i = 0; i < BODIES; i++)
    for (int j = i + 1; j < BODIES; j++) {
      double d[3], square = 0;
      for (int k = 0; k < 3; k++) {
        d[k] = bodies[i].x[k] - bodies[j].x[k];
        square += d[k] * d[k];
      }
      double pull = dt / (square * sqrt(square));
      for (int k = 0; k < 3; k++) {
        bodies[i].v[k] -= d[k] * bodies[j].mass * pull;
        bodies[j].v[k] += d[k] * bodies[i].mass * pull;
      }
    }
  for (int i = 0; i < BODIES; i++)
    for (int k = 0; k < 3; k++) bodies[i].x[k] += dt * bodies[i].v[k];
}

static double energy(const struct body *bodies) {
  double sum = 0;
  for (int i = 0; i < BODIES; i++) {
    const struct body *a = &bodies[i];
    sum += 0.5 * a->mass * (a->v[0] * a->v[0] + a->v[1] * a->v[1] + a->v[2] * a->v[2]);
    for (int j = i + 1; j < BODIES; j++) {
      double square = 0;
      for (int k = 0; k < 3; k++) square += (a->x[k] - bodies[j].x[k]) * (a->x[k] - bodies[j].x[k]);
      sum -= a->mass * bodies[j].mass / sqrt(square);
    }
  }
  return sum;
}

int main(int argc, char **argv) {
  int thousands = argc > 1 ? atoi(argv[1]) : 12000;
  if (thousands < 1 || thousands > 1000000) return 2;
  // The sun moves so that the system as a whole rests.
  for (int i = 1; i < BODIES; i++)
    for (int k = 0; k < 3; k++) system_[0].v[k] -= system_[i].v[k] * system_[i].mass / SUN;
  for (long step = 0; step < thousands * 1000L; step++) advance(system_, 0.01);
  printf("%.9f\n", energy(system_));
  return 0;
}
