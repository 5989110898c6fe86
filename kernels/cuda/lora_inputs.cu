// Adapters of a bf16 linear, backward, the side of the inputs: one pass over x and dx
// (lora_inputs.cuh).
#include "kernels/cuda/lora_backward.cuh"
#include "kernels/cuda/lora_sums.cuh"

namespace qvl
{

// Blocks that a multiprocessor's registers are divided among.
static constexpr int input_blocks_per_sm(int tiles)
{
    return tiles == 1 ? MOST_INPUT_BLOCKS_PER_SM : tiles <= 3 ? 4 : 2;
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
static __global__ void __launch_bounds__(INPUT_THREADS, input_blocks_per_sm(TILES))
    lora_inputs_kernel(input_params p)
{
    extern __shared__ uint4 stages[];
    const ahead<HAS_DX ? 2 : 1> in = {stages};
    const input_place at = find_input_place(p, INPUT_SLAB);
    const float scale = DROPS ? keep_scale(p.key.threshold) : 1.0f;
    uint32_t a[TILES][4];
    float da[TILES][2][4] = {};
#pragma unroll
    for (int i = 0; i < TILES; i++)
        if (HAS_DX) // A is older than the kernel before this one
            load_a(a[i], p.set.tile[i].a, p.in, at);
    auto fetch = [&](int64_t row, int stage) {
        in.fetch(stage, 0, p.x, p.x_stride, row, at, p.in);
        if (HAS_DX)
            in.fetch(stage, 1, p.dx, p.in, row, at, p.in);
        commit_async();
    };
    if (!p.is_dx_old)
        follow();
    for (int stage = 0; stage < STAGES - 1; stage++)
        fetch(at.row0 + at.g + stage * PIECE_ROWS, stage);
    if (p.is_dx_old)
        follow();
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
    __syncthreads(); // nobody reads the stages any more
    store_da<TILES>(p, at, da, scale, (float *)stages + threadIdx.x / 32 * ROOM);
}

// ---- launches -----------------------------------------------------------------------------------

template <int TILES, bool DROPS>
static cudaError_t launch_pass(const input_params &p, cudaStream_t stream)
{
    static bool is_set[2]; // of the two kernels below
    return p.dx
               ? launch_large(lora_inputs_kernel<TILES, DROPS, true>, &is_set[0], ahead_bytes<2>(),
                              p, input_grid(p, INPUT_SLAB), INPUT_THREADS, stream)
               : launch_large(lora_inputs_kernel<TILES, DROPS, false>, &is_set[1], ahead_bytes<1>(),
                              p, input_grid(p, INPUT_SLAB), INPUT_THREADS, stream);
}

template <int TILES> static cudaError_t launch_inputs(const input_params &p, cudaStream_t stream)
{
    return p.key.threshold ? launch_pass<TILES, true>(p, stream)
                           : launch_pass<TILES, false>(p, stream);
}

size_t lora_inputs_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    return qvl_parts_bound(limits->tokens, limits->in_max, INPUT_SLAB,
                           MOST_INPUT_BLOCKS_PER_SM * state_of(dev)->n_sms,
                           limits->tokens + PIECE_ROWS) *
               MAX_TILES * TILE_RANK * sizeof(float) +
           256;
}

qvl_status prepare_inputs(input_params *p, qvl_device *dev, const qvl_linear *lin, int64_t T,
                          const qvl_dropout *dropout, int slab, int blocks_at_once, size_t *used,
                          qvl_err *err)
{
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    const int64_t most = n_tiles < MAX_TILES ? n_tiles : MAX_TILES;
    void *memory = NULL;
    p->chunk_rows = (int)qvl_chunk_rows(T, divide_up(lin->in, slab),
                                        blocks_at_once * state_of(dev)->n_sms, T + PIECE_ROWS);
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

// The tiles from first on, and what is still to be added up.
static cudaError_t launch_tiles(input_params *p, const qvl_linear *lin, int64_t first,
                                lora_sums *sums, cudaStream_t stream)
{
    p->set = pick_tiles(lin, first);
    const cudaError_t code = p->set.n == 1   ? launch_inputs<1>(*p, stream)
                             : p->set.n == 2 ? launch_inputs<2>(*p, stream)
                             : p->set.n == 3 ? launch_inputs<3>(*p, stream)
                                             : launch_inputs<4>(*p, stream);
    if (code != cudaSuccess)
        return code;
    add_input_sums(sums, lin, first, *p);
    return launch_sums(*sums, stream);
}

qvl_status lora_backward_inputs(qvl_device *dev, const qvl_linear_backward_args *args,
                                const bf16 *du, const output_params *out, size_t used, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    const int most = (int)(n_tiles < MAX_TILES ? n_tiles : MAX_TILES);
    input_params p = {};
    lora_sums sums = {};
    cudaError_t code = cudaSuccess;
    const qvl_status rc = prepare_inputs(&p, dev, lin, args->T, args->dropout, INPUT_SLAB,
                                         input_blocks_per_sm(most), &used, err);
    if (rc != QVL_OK)
        return rc;
    p.du = du;
    p.x = (const bf16 *)args->x;
    p.x_stride = args->x_stride;
    p.dx = (bf16 *)args->dx;
    // with out, that kernel made du, after the product that made dx; later passes add to dx as well
    p.is_dx_old = out && n_tiles <= MAX_TILES;
    if (out)
        sums.out[sums.n_out++] = *out;
    for (int64_t first = 0; first < n_tiles && code == cudaSuccess; first += MAX_TILES) {
        code = launch_tiles(&p, lin, first, &sums, compute_of(dev));
        sums.n_out = 0; // was added up with the first tiles
    }
    return check(code, "adapters backward", err);
}

} // namespace qvl
