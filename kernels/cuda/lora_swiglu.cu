// Backward of the MLP's inner part in one pass (lora_swiglu.cuh), with down's adapter; ranks up to
// 32. With ranks up to 8, and gate or up adapted as well, lora_mlp.cu does more.
#include "kernels/cuda/lora_backward.cuh"
#include "kernels/cuda/lora_swiglu.cuh"

namespace qvl
{

// Blocks that a multiprocessor's registers are divided among.
static constexpr int swiglu_blocks_per_sm(int tiles)
{
    return tiles == 1 ? 4 : 2;
}

static __device__ __forceinline__ void store_piece(bf16 *to, int64_t stride, int64_t row,
                                                   const input_place &at, int64_t in,
                                                   const piece &x)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        const uint32_t *w = x.word[half];
        if (r < at.last && at.col < in)
            *(uint4 *)(to + r * stride + at.col) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

template <int TILES, bool DROPS>
static __global__ void __launch_bounds__(INPUT_THREADS, swiglu_blocks_per_sm(TILES))
    lora_swiglu_kernel(input_params p)
{
    extern __shared__ uint4 stages[];
    const ahead<3> in = {stages};
    const input_place at = find_input_place(p, INPUT_SLAB);
    const float scale = DROPS ? keep_scale(p.key.threshold) : 1.0f;
    uint32_t a[TILES][4];
    float da[TILES][2][4] = {};
    follow();
    auto fetch = [&](int64_t row, int stage) {
        in.fetch(stage, 0, p.gate_up, 2 * p.in, row, at, p.in);
        in.fetch(stage, 1, p.gate_up + p.in, 2 * p.in, row, at, p.in);
        in.fetch(stage, 2, p.dx, p.in, row, at, p.in);
        commit_async();
    };
    for (int stage = 0; stage < STAGES - 1; stage++)
        fetch(at.row0 + at.g + stage * PIECE_ROWS, stage);
#pragma unroll
    for (int i = 0; i < TILES; i++)
        load_a(a[i], p.set.tile[i].a, p.in, at);
    int stage = 0;
    for (int64_t row = at.row0 + at.g; row - at.g < at.last; row += PIECE_ROWS) {
        piece h;
        float sum[4][4] = {}, s[2][8];
        fetch(row + (STAGES - 1) * PIECE_ROWS, (stage + STAGES - 1) % STAGES);
        strip_rows<TILES> rows;
        load_rows<TILES, DROPS>(&rows, p, at, row);
        wait_async<STAGES - 1>();
        piece gate = in.take(stage, 0), up = in.take(stage, 1);
        make_h(&h, s, gate, up);
        run_piece<TILES, DROPS, true>(da, sum, h, a, p, at, rows);
        make_gradients(&gate, &up, in.take(stage, 2), sum, s, scale);
        store_piece(p.dgate_up, 2 * p.in, row, at, p.in, gate);
        store_piece(p.dgate_up + p.in, 2 * p.in, row, at, p.in, up);
        stage = (stage + 1) % STAGES;
    }
    wait_async<0>();
    __syncthreads(); // nobody reads the stages any more
    store_da<TILES>(p, at, da, scale, (float *)stages + threadIdx.x / 32 * ROOM);
}

// ---- launches -----------------------------------------------------------------------------------

template <int TILES> static cudaError_t launch_swiglu(const input_params &p, cudaStream_t stream)
{
    static bool is_set[2];
    const bool drops = p.key.threshold != 0;
    return launch_large(drops ? lora_swiglu_kernel<TILES, true> : lora_swiglu_kernel<TILES, false>,
                        &is_set[drops], ahead_bytes<3>(), p, input_grid(p, INPUT_SLAB),
                        INPUT_THREADS, stream);
}

static cudaError_t launch_swiglu_tiles(const input_params &p, cudaStream_t stream)
{
    return p.set.n == 1   ? launch_swiglu<1>(p, stream)
           : p.set.n == 2 ? launch_swiglu<2>(p, stream)
           : p.set.n == 3 ? launch_swiglu<3>(p, stream)
                          : launch_swiglu<4>(p, stream);
}

static_assert(SWIGLU_RANK == MAX_TILES * TILE_RANK, "h is read or made by the same rule");

bool lora_can_fuse_swiglu(const qvl_linear *lin)
{
    return lin->n_adapters * tiles_of(lin) <= MAX_TILES;
}

qvl_status prepare_down(input_params *p, qvl_device *dev, const qvl_mlp_backward_args *args,
                        const output_params *down, int slab, int blocks_at_once, size_t *used,
                        qvl_err *err)
{
    p->du = down->du;
    p->gate_up = (const bf16 *)args->gate_up;
    p->dx = (bf16 *)args->dh;
    p->dgate_up = (bf16 *)args->dgate_up;
    p->set = pick_tiles(args->down, 0);
    return prepare_inputs(p, dev, args->down, args->T, args->dropout, slab, blocks_at_once, used,
                          err);
}

qvl_status lora_backward_swiglu(qvl_device *dev, const qvl_mlp_backward_args *args,
                                const output_params *down, size_t used, qvl_err *err)
{
    input_params p = {};
    lora_sums sums = {};
    const int n_tiles = (int)(args->down->n_adapters * tiles_of(args->down));
    const qvl_status rc =
        prepare_down(&p, dev, args, down, INPUT_SLAB, swiglu_blocks_per_sm(n_tiles), &used, err);
    if (rc != QVL_OK)
        return rc;
    cudaError_t code = launch_swiglu_tiles(p, compute_of(dev));
    sums.out[sums.n_out++] = *down;
    add_input_sums(&sums, args->down, 0, p);
    if (code == cudaSuccess)
        code = launch_sums(sums, compute_of(dev));
    return check(code, "mlp backward", err);
}

} // namespace qvl
