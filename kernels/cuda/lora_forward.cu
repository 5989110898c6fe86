// Adapters of a bf16 linear, forward (see "Tails" in ops.h): u_i = drop_i(x) A_i^T goes behind x,
// in one pass over x for all adapters of the group. Masks are made in registers, where the elements
// are.
//
// For the down projection the same pass makes x = silu(gate) * up, which it only has to write.
//
// A block has 16 rows and a share of the columns; its warps walk over them 32 at a time. Where
// columns are shared by several blocks, the last of them to end adds the shares up, in order.
//
// What was put there can be kept, and put back behind x without another pass over it.
#include "kernels/cuda/lora_tiles.cuh"
#include "kernels/cuda/swiglu_math.cuh"

namespace qvl
{

enum {
    U_COLUMNS = LORA_WARPS * PIECE_COLUMNS,
    MOST_SHARES = 16,
    LEAST_STEPS = 2,
    MOST_U_BLOCKS_PER_SM = 4
};

static constexpr int u_blocks_per_sm(int tiles)
{
    return tiles == 1 ? MOST_U_BLOCKS_PER_SM : 2;
}

struct u_params {
    tile_set set;
    bf16 *x;
    const bf16 *gate_up; // of the fused pass: [T, 2 in]; x is then set
    float *parts;        // [strip, share, tile, 16, 8]
    unsigned *counters;  // [strip], 0
    bf16 *kept;          // [T, kept_stride], where u goes as well, or NULL
    int64_t T, in, x_stride, kept_stride;
    int n_shares;
    mask_key key;
};

// This lane's columns of rows row, row + 8 of silu(gate) up, which are also stored.
static __device__ __forceinline__ void make_piece(piece *x, const u_params &p, int64_t row,
                                                  int64_t col)
{
    piece gate, up;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        const bool is_there = r < p.T && col < p.in;
        const bf16 *from = p.gate_up + r * 2 * p.in + col;
        load_words_once(gate.word[half], from, is_there);
        load_words_once(up.word[half], from + p.in, is_there);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t *word = x->word[half];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t g = gate.word[half][j], u = up.word[half][j];
            word[j] = pack_halves(swiglu_value<bf16>(low_half(g), low_half(u)),
                                  swiglu_value<bf16>(high_half(g), high_half(u)));
        }
        if (row + 8 * half < p.T && col < p.in)
            *(uint4 *)(p.x + (row + 8 * half) * p.x_stride + col) =
                make_uint4(word[0], word[1], word[2], word[3]);
    }
}

template <int TILES, bool DROPS, bool IS_SWIGLU>
static __device__ __forceinline__ void add_pieces(float c[TILES][4], const u_params &p, int64_t row)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t step = (int64_t)p.n_shares * U_COLUMNS;
    const int64_t first = (int64_t)blockIdx.y * U_COLUMNS + warp * PIECE_COLUMNS;
    uint32_t sample[2] = {}, token[2] = {};
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (DROPS && row + 8 * half < p.T) {
            sample[half] = (uint32_t)p.key.sample[row + 8 * half];
            token[half] = (uint32_t)p.key.token[row + 8 * half];
        }
        /* from the last columns on: of gate and up those that were written last are in the L2 cache
         */
#pragma unroll 2
    for (int64_t k0 = first + (p.in - 1) / step * step; k0 >= first; k0 -= step) {
        const int64_t col = k0 + 8 * t;
        piece x;
        uint32_t drop[2][4];
        if (IS_SWIGLU)
            make_piece(&x, p, row, col);
        else
            load_piece(&x, p.x, p.x_stride, row, p.T, col, p.in);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            uint32_t b[4], w[2][4];
            load_words(b, p.set.tile[i].a + g * p.in + col, col < p.in);
            if (DROPS && (i == 0 || p.set.tile[i].module != p.set.tile[i - 1].module))
#pragma unroll
                for (int half = 0; half < 2; half++)
                    drop_words(drop[half], p.key, (uint32_t)(col / 8), p.set.tile[i].module,
                               token[half], sample[half]);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    w[half][j] = DROPS ? x.word[half][j] & ~drop[half][j] : x.word[half][j];
#pragma unroll
            for (int j = 0; j < 4; j += 2)
                product_16(c[i], w[0][j], w[1][j], w[0][j + 1], w[1][j + 1], b[j], b[j + 1]);
        }
    }
}

template <int TILES, bool DROPS, bool IS_SWIGLU>
static __global__ void __launch_bounds__(LORA_THREADS, u_blocks_per_sm(TILES))
    lora_u_kernel(u_params p)
{
    enum { VALUES = TILES * PIECE_ROWS * TILE_RANK };
    __shared__ float parts[LORA_WARPS][VALUES];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t row0 = (int64_t)blockIdx.x * PIECE_ROWS;
    float c[TILES][4] = {};
    follow();
    add_pieces<TILES, DROPS, IS_SWIGLU>(c, p, row0 + g);
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float *to = &parts[warp][(i * PIECE_ROWS + g + 8 * half) * TILE_RANK + 2 * t];
            to[0] = c[i][2 * half];
            to[1] = c[i][2 * half + 1];
        }
    __syncthreads();
    float *all = p.parts + (int64_t)blockIdx.x * p.n_shares * VALUES;
    for (int i = threadIdx.x; i < VALUES; i += LORA_THREADS) {
        float sum = 0.0f;
        for (int w = 0; w < LORA_WARPS; w++)
            sum += parts[w][i];
        if (p.n_shares == 1)
            parts[0][i] = sum; // only this thread has read it
        else
            __stcg(all + (int64_t)blockIdx.y * VALUES + i, sum);
    }
    if (p.n_shares > 1 && !is_last_block(p.counters + blockIdx.x, (unsigned)p.n_shares))
        return;
    const float scale = DROPS ? keep_scale(p.key.threshold) : 1.0f;
    for (int i = threadIdx.x; i < VALUES; i += LORA_THREADS) {
        const int tile = i / (PIECE_ROWS * TILE_RANK), r = i / TILE_RANK % PIECE_ROWS;
        float sum = p.n_shares == 1 ? parts[0][i] : 0.0f;
        for (int s = 0; s < p.n_shares && p.n_shares > 1; s++)
            sum += __ldcg(all + (int64_t)s * VALUES + i);
        const int column = p.set.tile[tile].column + i % TILE_RANK;
        const bf16 u = __float2bfloat16(sum * scale);
        if (row0 + r < p.T)
            p.x[(row0 + r) * p.x_stride + p.in + column] = u;
        if (row0 + r < p.T && p.kept)
            p.kept[(row0 + r) * p.kept_stride + column] = u;
    }
}

template <int TILES, bool IS_SWIGLU>
static cudaError_t launch_u(const u_params &p, cudaStream_t stream)
{
    const dim3 grid((unsigned)divide_up(p.T, PIECE_ROWS), (unsigned)p.n_shares);
    return launch(p.key.threshold ? lora_u_kernel<TILES, true, IS_SWIGLU>
                                  : lora_u_kernel<TILES, false, IS_SWIGLU>,
                  grid, LORA_THREADS, 0, stream, p);
}

template <int TILES> static cudaError_t launch_tiles(const u_params &p, cudaStream_t stream)
{
    return p.gate_up ? launch_u<TILES, true>(p, stream) : launch_u<TILES, false>(p, stream);
}

// Blocks that share a strip of rows: as many as run at once, each with some steps to do.
static int shares_for(const qvl_device *dev, int64_t T, int64_t in, int tiles)
{
    const int64_t strips = divide_up(T, PIECE_ROWS), steps = divide_up(in, U_COLUMNS);
    const int64_t wanted = u_blocks_per_sm(tiles) * state_of(dev)->n_sms / strips;
    const int64_t most = steps / LEAST_STEPS < MOST_SHARES ? steps / LEAST_STEPS : MOST_SHARES;
    const int64_t shares = wanted < most ? wanted : most;
    return strips > LORA_COUNTERS || shares < 1 ? 1 : (int)shares;
}

// strips * shares stay below strips + MOST_U_BLOCKS_PER_SM n_sms.
size_t lora_forward_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    const int64_t strips = divide_up(limits->tokens, PIECE_ROWS);
    const int64_t most = strips * MOST_SHARES,
                  wanted = strips + MOST_U_BLOCKS_PER_SM * state_of(dev)->n_sms;
    return (size_t)((most < wanted ? most : wanted) * MAX_TILES * PIECE_ROWS * TILE_RANK) *
               sizeof(float) +
           256;
}

qvl_status lora_forward(qvl_device *dev, const qvl_linear_args *args, const void *gate_up,
                        qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    const int64_t most = n_tiles < MAX_TILES ? n_tiles : MAX_TILES;
    u_params p = {};
    size_t used = 0;
    void *memory = NULL;
    cudaError_t code = cudaSuccess;
    p.n_shares = shares_for(dev, args->T, lin->in, (int)most);
    const qvl_status rc = scratch(
        dev, &memory, &used,
        (size_t)(divide_up(args->T, PIECE_ROWS) * p.n_shares * most * PIECE_ROWS * TILE_RANK) *
            sizeof(float),
        err);
    if (rc != QVL_OK)
        return rc;
    p.x = (bf16 *)(uintptr_t)args->x; // the tail of x is ours to write
    p.gate_up = (const bf16 *)gate_up;
    p.parts = (float *)memory;
    p.counters = state_of(dev)->counters;
    p.T = args->T;
    p.in = lin->in;
    p.x_stride = args->x_stride;
    p.kept = (bf16 *)args->kept_u;
    p.kept_stride = tail_used(lin);
    p.key = key_of(args->dropout);
    for (int64_t first = 0; first < n_tiles && code == cudaSuccess; first += MAX_TILES) {
        p.set = pick_tiles(lin, first);
        switch (p.set.n) {
        case 1:
            code = launch_tiles<1>(p, compute_of(dev));
            break;
        case 2:
            code = launch_tiles<2>(p, compute_of(dev));
            break;
        case 3:
            code = launch_tiles<3>(p, compute_of(dev));
            break;
        default:
            code = launch_tiles<4>(p, compute_of(dev));
            break;
        }
    }
    return check(code, "adapters forward", err);
}

// ---- from where it was kept ---------------------------------------------------------------------

// A thread has 8 columns of a row.
static __global__ void restore_kernel(bf16 *tail, int64_t stride, const uint4 *kept, int64_t n,
                                      int per_row)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    follow();
    if (i < n)
        *(uint4 *)(tail + i / per_row * stride + i % per_row * 8) = kept[i];
}

qvl_status lora_restore(qvl_device *dev, const qvl_linear_args *args, qvl_err *err)
{
    enum { THREADS = 256 };
    const qvl_linear *lin = args->linear;
    const int per_row = (int)tail_used(lin) / 8;
    const int64_t n = args->T * per_row;
    bf16 *tail = (bf16 *)(uintptr_t)args->x + lin->in; // ours to write
    return check(launch(restore_kernel, dim3((unsigned)divide_up(n, THREADS)), THREADS, 0,
                        compute_of(dev), tail, args->x_stride, (const uint4 *)args->kept_u, n,
                        per_row),
                 "adapters forward", err);
}

size_t lora_scratch_bytes(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    if (limits->rank == 0)
        return 0;
    const size_t forward = lora_forward_scratch(dev, limits);
    if (!limits->backward)
        return forward;
    // du and the parts of dB stay; the parts of du are done with before those of the inputs
    const int64_t R8 = divide_up(limits->rank, TILE_RANK) * TILE_RANK;
    const size_t du = (size_t)(limits->tokens * QVL_MAX_FUSED * R8) * sizeof(bf16) + 2 * 256;
    const size_t parts[] = {lora_du_scratch(dev, limits), lora_inputs_scratch(dev, limits),
                            lora_mlp_scratch(dev, limits)};
    size_t most = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        most = parts[i] > most ? parts[i] : most;
    const size_t backward = du + lora_db_scratch(dev, limits) + most;
    return forward > backward ? forward : backward;
}

} // namespace qvl
