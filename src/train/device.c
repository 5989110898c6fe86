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

/* A slip of the pen would end in libgomp, without a word of whose it is. */
static qvl_status check_threads(int n_threads, qvl_err *err)
{
    enum { MOST = 1024 };
    if (n_threads <= MOST)
        return QVL_OK;
    return qvl_fail(err, QVL_ECONFIG, "OMP_NUM_THREADS: %d threads a rank, expected at most %d",
                    n_threads, MOST);
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
    return qvl_world_agree(world, check_threads(*out_threads, err), err);
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

/* ---- GPUs --------------------------------------------------------------------------------------
 */

#ifdef QVL_WITH_CUDA

/* text: the first one's name, or why there is none. */
static int count_gpus(char *text, size_t n_bytes)
{
    const int n = qvl_cuda_device_count(text, n_bytes);
    if (n == 0)
        qvl_cuda_why_no_device(text, n_bytes);
    return n;
}

/* Where a rank sees its GPU: each host rank its own, by local rank; launchers that show a rank one
 * GPU only have chosen already. */
static int gpu_of_rank(const qvl_world *world, int n_gpus)
{
    const int local = qvl_world_local_rank(world);
    return n_gpus >= qvl_world_local_size(world) ? local : local % n_gpus;
}

/* One GPU, one rank, unless share_gpu says otherwise. */
static qvl_status check_alone(int index, const qvl_config *config, qvl_world *world, qvl_err *err)
{
    char mine[64] = "", *all = NULL;
    const int n_ranks = qvl_world_size(world);
    qvl_status rc = QVL_OK;
    qvl_cuda_device_id(mine, index);
    rc = qvl_alloc(&all, (size_t)n_ranks, sizeof mine, "placement", err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_all_gather(world, all, mine, sizeof mine, err));
    for (int r = 0; r < n_ranks && !config->share_gpu; r++)
        for (int s = 0; s < r; s++)
            if (strcmp(all + (size_t)r * sizeof mine, all + (size_t)s * sizeof mine) == 0) {
                rc = qvl_fail(err, QVL_EDEVICE,
                              "ranks %d and %d would share a GPU: start as many ranks on a host as "
                              "it has GPUs, or set share_gpu: true (for tests; slow)",
                              s, r);
                goto out;
            }
out:
    free(all);
    return rc;
}

static qvl_status open_gpu(qvl_device **out, int n_gpus, const qvl_config *config, qvl_world *world,
                           qvl_err *err)
{
    const int index = gpu_of_rank(world, n_gpus);
    const qvl_status rc = check_alone(index, config, world, err);
    return rc == QVL_OK ? qvl_device_open_cuda(out, index, config->bf16 ? QVL_BF16 : QVL_F32, err)
                        : rc;
}

#else

static int count_gpus(char *text, size_t n_bytes)
{
    snprintf(text, n_bytes, "this build has no CUDA");
    return 0;
}

static qvl_status open_gpu(qvl_device **out, int n_gpus, const qvl_config *config, qvl_world *world,
                           qvl_err *err)
{
    (void)out;
    (void)n_gpus;
    (void)config;
    (void)world;
    return qvl_fail(err, QVL_EINTERNAL, "built without CUDA");
}

#endif

/* All ranks add their rank + 1 and look at the sum: a first exchange, before there is much to lose.
 */
static qvl_status try_exchange(qvl_device *dev, qvl_exchange *exchange, qvl_world *world,
                               qvl_err *err)
{
    enum { N = 1024 };
    const int n_ranks = qvl_world_size(world);
    const double want = n_ranks * (n_ranks + 1) / 2.0;
    const qvl_ops *ops = dev->ops;
    float values[N];
    void *memory = NULL;
    qvl_status rc = ops->alloc(dev, &memory, sizeof values, QVL_MEM_DEVICE, "first exchange", err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    for (int i = 0; i < N; i++)
        values[i] = (float)(qvl_world_rank(world) + 1);
    QVL_TRY(ops->upload(dev, memory, values, sizeof values, QVL_LANE_REDUCE, err));
    QVL_TRY(qvl_exchange_sum_f32(exchange, memory, N, err));
    QVL_TRY(ops->download(dev, values, memory, sizeof values, QVL_LANE_REDUCE, err));
    QVL_TRY(ops->wait(dev, QVL_LANE_REDUCE, err));
    for (int i = 0; i < N && rc == QVL_OK; i++)
        if ((double)values[i] != want)
            rc = qvl_fail(err, QVL_EDEVICE, "first exchange between GPUs: the sum is %g, not %g",
                          (double)values[i], want);
out:
    if (memory)
        ops->release(dev, memory, QVL_MEM_DEVICE);
    return rc;
}

static qvl_status connect(qvl_exchange **out, qvl_device *dev, const qvl_config *config,
                          qvl_world *world, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    if (strcmp(dev->ops->name, "cuda") != 0 || qvl_world_size(world) == 1)
        return QVL_OK;
    qvl_world_set_phase(world, "connecting the GPUs");
    QVL_TRY(qvl_exchange_create(out, world, dev->ops->stream(dev, QVL_LANE_REDUCE),
                                config->share_gpu, err));
    dev->poll = qvl_exchange_poll;
    dev->poll_context = *out;
    rc = try_exchange(dev, *out, world, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
out:
    return rc;
}

/* ---- choosing ----------------------------------------------------------------------------------
 */

/* The ranks of a job compute on the same kind of device: on GPUs when every rank sees one. */
static qvl_status open_device(qvl_device **out, int n_threads, const qvl_config *config,
                              qvl_world *world, qvl_log *log, qvl_err *err)
{
    char gpu[256]; /* or why there is none */
    qvl_status rc = QVL_OK;
    if (strcmp(config->device, "cpu") == 0)
        return qvl_device_open_cpu(out, n_threads, err);
    const int n_gpus = count_gpus(gpu, sizeof gpu);
    int64_t without = n_gpus == 0;
    QVL_TRY(qvl_world_max_i64(world, &without, 1, err));
    if (strcmp(config->device, "cuda") == 0 && n_gpus == 0)
        return qvl_fail(
            err, QVL_EDEVICE,
            "device: cuda: no GPU found (%s); set device: cpu, or run on a node with a GPU", gpu);
    if (!without || strcmp(config->device, "cuda") == 0) {
        if (n_gpus > qvl_world_local_size(world))
            qvl_log_line(log,
                         "note: this host has %d GPUs and this job uses %d of them; start with "
                         "mpirun -np %d for all",
                         n_gpus, qvl_world_local_size(world), n_gpus);
        return open_gpu(out, n_gpus, config, world, err);
    }
    if (n_gpus)
        snprintf(gpu, sizeof gpu, "%d GPUs found on rank 0, none on another", n_gpus);
    if (config->bf16) /* asked for what only a GPU does: hardly meant for the CPU */
        qvl_log_warn(log,
                     "device: auto: the CPU, in float32, though bf16: true asks for a GPU (%s%s)",
                     n_gpus ? "" : "no GPU found: ", gpu);
    else
        qvl_log_line(log, "device: auto: the CPU (%s%s)", n_gpus ? "" : "no GPU found: ", gpu);
    rc = qvl_device_open_cpu(out, n_threads, err);
out:
    return rc;
}

qvl_status qvl_device_choose(qvl_device **out, qvl_exchange **out_exchange, int *out_threads,
                             const qvl_config *config, qvl_world *world, qvl_log *log, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_threads_choose(out_threads, world, err));
    rc = open_device(out, *out_threads, config, world, log, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(print_placement(*out, world, log, err));
    QVL_TRY(connect(out_exchange, *out, config, world, err));
    if (config->bf16 && strcmp(config->device, "cpu") == 0)
        qvl_log_line(log, "note: bf16: true is for GPUs; the CPU computes in float32");
out:
    return rc;
}
