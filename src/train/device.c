#define _GNU_SOURCE /* sched_getaffinity */

#include "src/train/device.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/memory.h"

#ifdef QVL_WITH_CUDA
#include "kernels/cuda/device_cuda.h"
#endif

/* What ranks tell one another about where they sit. */
typedef struct seat {
    char host[128];
    cpu_set_t cores;
    char device[128];
    int local_rank;
} seat;

static qvl_status gather_seats(seat **out, const seat *mine, qvl_world *world, qvl_err *err)
{
    seat *seats = NULL;
    qvl_status rc =
        qvl_alloc(&seats, (size_t)qvl_world_size(world), sizeof *seats, "placement", err);
    if (rc == QVL_OK)
        rc = qvl_world_all_gather(world, seats, mine, sizeof *mine, err);
    if (rc != QVL_OK) {
        free(seats);
        return rc;
    }
    *out = seats;
    return QVL_OK;
}

static void fill_seat(seat *mine, const qvl_world *world)
{
    memset(mine, 0, sizeof *mine);
    snprintf(mine->host, sizeof mine->host, "%.120s", qvl_world_host(world));
    mine->local_rank = qvl_world_local_rank(world);
    sched_getaffinity(0, sizeof mine->cores, &mine->cores);
}

qvl_status qvl_threads_choose(int *out_threads, qvl_world *world, qvl_err *err)
{
    seat mine, *seats = NULL;
    fill_seat(&mine, world);
    qvl_status rc = gather_seats(&seats, &mine, world, err);
    if (rc != QVL_OK)
        return rc;
    int sharing = 0;
    for (int r = 0; r < qvl_world_size(world); r++)
        sharing += strcmp(seats[r].host, mine.host) == 0 && CPU_EQUAL(&seats[r].cores, &mine.cores);
    const int cores = CPU_COUNT(&mine.cores);
    *out_threads =
        getenv("OMP_NUM_THREADS") ? omp_get_max_threads() : cores / (sharing ? sharing : 1);
    if (*out_threads < 1)
        *out_threads = 1;
    free(seats);
    return QVL_OK;
}

static qvl_status print_placement(const qvl_device *dev, qvl_world *world, qvl_log *log,
                                  qvl_err *err)
{
    seat mine, *seats = NULL;
    fill_seat(&mine, world);
    snprintf(mine.device, sizeof mine.device, "%s", dev->name);
    const qvl_status rc = gather_seats(&seats, &mine, world, err);
    if (rc != QVL_OK)
        return rc;
    for (int r = 0; r < qvl_world_size(world); r++)
        qvl_log_line(log, "rank %d  host %s  local rank %d  %s", r, seats[r].host,
                     seats[r].local_rank, seats[r].device);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (strcmp(dev->ops->name, "cpu") == 0 && CPU_COUNT(&mine.cores) == 1 && online > 1 &&
        qvl_world_local_size(world) < online)
        qvl_log_line(log,
                     "note: this rank is bound to 1 of %ld cores; mpirun --bind-to none gives it "
                     "its share of all",
                     online);
    free(seats);
    return QVL_OK;
}

#ifdef QVL_WITH_CUDA
static int count_gpus(char *first_name, size_t n_bytes)
{
    return qvl_cuda_device_count(first_name, n_bytes);
}
#else
static int count_gpus(char *first_name, size_t n_bytes)
{
    (void)n_bytes;
    first_name[0] = '\0';
    return 0;
}
#endif

static qvl_status open_device(qvl_device **out, int n_threads, const qvl_config *config,
                              qvl_log *log, qvl_err *err)
{
    char gpu[128];
    const int n_gpus = count_gpus(gpu, sizeof gpu);
    if (strcmp(config->device, "cuda") == 0)
        return qvl_fail(err, QVL_EDEVICE,
                        n_gpus > 0 ? "device: cuda: %d GPUs (%s), but this version of qvl computes "
                                     "on CPUs only; set device: cpu"
                                   : "device: cuda: %d GPUs found%s; set device: cpu, or run on a "
                                     "node with a GPU",
                        n_gpus, gpu);
    if (strcmp(config->device, "auto") == 0)
        qvl_log_line(log,
                     n_gpus > 0 ? "device: auto: the CPU (%d GPUs are here, the first %s; this "
                                  "version computes on CPUs only)"
                                : "device: auto: the CPU (%d GPUs found%s)",
                     n_gpus, gpu);
    return qvl_device_open_cpu(out, n_threads, err);
}

qvl_status qvl_device_choose(qvl_device **out, int *out_threads, const qvl_config *config,
                             qvl_world *world, qvl_log *log, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_threads_choose(out_threads, world, err));
    rc = open_device(out, *out_threads, config, log, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(print_placement(*out, world, log, err));
    if (config->bf16 && (*out)->dtype == QVL_F32 && strcmp((*out)->ops->name, "cpu") == 0)
        qvl_log_line(log, "note: bf16: true is for GPUs; the CPU computes in float32");
out:
    return rc;
}
