// Adapters of a bf16 linear, backward, the side of the inputs: one pass over x and dx
// (lora_inputs.cuh).
#include "kernels/cuda/lora_inputs.cuh"

namespace qvl
{

// Blocks that a multiprocessor's registers are divided among.
__host__ __device__ constexpr int blocks_per_sm(int tiles)
{
    return tiles == 1 ? 4 : tiles <= 3 ? 2 : 1;
}

static __device__ __forceinline__ void add_to_rows(bf16 *dx, int64_t in, const input_place &at,
                                                   int64_t row, const piece &old,
                                                   const float sum[4][4], float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        if (r >= at.last || at.col >= in)
            continue;
        float v[8];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            v[2 * j] = low_half(old.word[half][j]) + scale * sum[j][2 * half];
            v[2 * j + 1] = high_half(old.word[half][j]) + scale * sum[j][2 * half + 1];
        }
        pack8<bf16>::store(dx + r * in + at.col, v);
    }
}

template <int TILES, bool DROPS, bool HAS_DX>
static __global__ void __launch_bounds__(LORA_THREADS, blocks_per_sm(TILES))
    lora_inputs_kernel(input_params p)
{
    extern __shared__ uint4 stages[];
    const ahead<HAS_DX ? 2 : 1> in = {stages};
    const input_place at = find_input_place(p);
    const float scale = DROPS ? keep_scale(p.key.threshold) : 1.0f;
    uint32_t a[TILES][4];
    float da[TILES][2][4] = {};
    follow();
    auto fetch = [&](int64_t row, int stage) {
        in.fetch(stage, 0, p.x, p.x_stride, row, at, p.in);
        if (HAS_DX)
            in.fetch(stage, 1, p.dx, p.in, row, at, p.in);
        commit_async();
    };
    for (int stage = 0; stage < STAGES - 1; stage++)
        fetch(at.row0 + at.g + stage * PIECE_ROWS, stage);
#pragma unroll
    for (int i = 0; i < TILES; i++)
        if (HAS_DX)
            load_a(a[i], p.set.tile[i].a, p.in, at);
    strip_rows<TILES> next; // loaded while the strip before is worked on
    load_rows<TILES, DROPS>(&next, p, at, at.row0 + at.g);
    int stage = 0;
    for (int64_t row = at.row0 + at.g; row - at.g < at.last; row += PIECE_ROWS) {
        float sum[4][4] = {};
        fetch(row + (STAGES - 1) * PIECE_ROWS, (stage + STAGES - 1) % STAGES);
        const strip_rows<TILES> rows = next;
        load_rows<TILES, DROPS>(&next, p, at, row + PIECE_ROWS);
        wait_async<STAGES - 1>();
        const piece x = in.take(stage, 0);
        run_piece<TILES, DROPS, HAS_DX>(da, sum, x, a, p, at, rows);
        if (HAS_DX)
            add_to_rows(p.dx, p.in, at, row, in.take(stage, 1), sum, scale);
        stage = (stage + 1) % STAGES;
    }
    wait_async<0>();
    store_da<TILES>(p, at, da, scale);
}

// ---- sums and launches --------------------------------------------------------------------------

static __global__ void __launch_bounds__(LORA_THREADS)
    lora_inputs_sum_kernel(input_targets to, const float *parts, int n_chunks, int n_tiles,
                           int64_t in)
{
    follow();
    sum_da(to, parts, n_chunks, n_tiles, in, (int64_t)blockIdx.x * LORA_THREADS + threadIdx.x);
}

cudaError_t launch_inputs_sum(const input_params &p, const input_targets &to, cudaStream_t stream)
{
    return launch(lora_inputs_sum_kernel,
                  dim3((unsigned)divide_up(p.set.n * TILE_RANK * p.in, LORA_THREADS)), LORA_THREADS,
                  0, stream, to, p.da_parts, (int)divide_up(p.T, p.chunk_rows), p.set.n, p.in);
}

template <int TILES, bool DROPS>
static cudaError_t launch_pass(const input_params &p, cudaStream_t stream)
{
    static bool is_set[2]; // of the two kernels below
    return p.dx ? launch_large(lora_inputs_kernel<TILES, DROPS, true>, &is_set[0], ahead_bytes<2>(),
                               p, input_grid(p), stream)
                : launch_large(lora_inputs_kernel<TILES, DROPS, false>, &is_set[1],
                               ahead_bytes<1>(), p, input_grid(p), stream);
}

template <int TILES>
static cudaError_t launch_inputs(const input_params &p, const input_targets &to,
                                 cudaStream_t stream)
{
    const cudaError_t code = p.key.threshold ? launch_pass<TILES, true>(p, stream)
                                             : launch_pass<TILES, false>(p, stream);
    return code == cudaSuccess ? launch_inputs_sum(p, to, stream) : code;
}

input_targets input_targets_of(const qvl_linear *lin, int64_t first, int n)
{
    const int64_t per_adapter = tiles_of(lin);
    input_targets to = {};
    for (int i = 0; i < n; i++) {
        const int64_t rank0 = (first + i) % per_adapter * TILE_RANK;
        to.da[i] = lin->adapters[(first + i) / per_adapter].da + rank0 * lin->in;
        to.ranks[i] = (int)(lin->rank - rank0 < TILE_RANK ? lin->rank - rank0 : TILE_RANK);
    }
    return to;
}

size_t lora_inputs_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    return parts_bound(limits->tokens, limits->in_max, INPUT_SLAB,
                       MOST_BLOCKS_PER_SM * state_of(dev)->n_sms, limits->tokens + PIECE_ROWS) *
               MAX_TILES * TILE_RANK * sizeof(float) +
           256;
}

qvl_status prepare_inputs(input_params *p, qvl_device *dev, const qvl_linear *lin, int64_t T,
                          const qvl_dropout *dropout, int blocks_per_sm, size_t *used, qvl_err *err)
{
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    const int64_t most = n_tiles < MAX_TILES ? n_tiles : MAX_TILES;
    void *memory = NULL;
    p->chunk_rows = (int)chunk_rows_for(T, divide_up(lin->in, INPUT_SLAB),
                                        blocks_per_sm * state_of(dev)->n_sms, T + PIECE_ROWS);
    p->T = T;
    p->in = lin->in;
    p->du_stride = tail_used(lin);
    p->key = key_of(dropout);
    const qvl_status rc = scratch(
        dev, &memory, used,
        (size_t)(divide_up(T, p->chunk_rows) * most * lin->in * TILE_RANK) * sizeof(float), err);
    p->da_parts = (float *)memory;
    return rc;
}

static cudaError_t launch_tiles(input_params *p, const qvl_linear *lin, int64_t first,
                                cudaStream_t stream)
{
    p->set = pick_tiles(lin, first);
    const input_targets to = input_targets_of(lin, first, p->set.n);
    switch (p->set.n) {
    case 1:
        return launch_inputs<1>(*p, to, stream);
    case 2:
        return launch_inputs<2>(*p, to, stream);
    case 3:
        return launch_inputs<3>(*p, to, stream);
    default:
        return launch_inputs<4>(*p, to, stream);
    }
}

qvl_status lora_backward_inputs(qvl_device *dev, const qvl_linear_backward_args *args,
                                const bf16 *du, size_t used, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    const int most = (int)(n_tiles < MAX_TILES ? n_tiles : MAX_TILES);
    input_params p = {};
    cudaError_t code = cudaSuccess;
    const qvl_status rc =
        prepare_inputs(&p, dev, lin, args->T, args->dropout, blocks_per_sm(most), &used, err);
    if (rc != QVL_OK)
        return rc;
    p.du = du;
    p.x = (const bf16 *)args->x;
    p.x_stride = args->x_stride;
    p.dx = (bf16 *)args->dx;
    for (int64_t first = 0; first < n_tiles && code == cudaSuccess; first += MAX_TILES)
        code = launch_tiles(&p, lin, first, compute_of(dev));
    return check(code, "adapters backward", err);
}

} // namespace qvl
