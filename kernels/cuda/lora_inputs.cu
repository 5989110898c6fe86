// Adapters of a bf16 linear, backward, the side of the inputs: one pass over x and dx gives
//
//   dx += sum_i drop_i(du_i A_i)         dA_i += du_i^T drop_i(x)
//
// and for the down projection the same pass goes on through SwiGLU: x = silu(gate) * up is made
// again from gate and up, which are read anyway, and dx, which is read once, becomes dgate and dup.
//
// A block has a slab of columns and a chunk of rows; a second kernel adds the chunks' dA up, in
// order.
#include "kernels/cuda/lora_tiles.cuh"
#include "kernels/cuda/swiglu_math.cuh"
#include "kernels/cuda/tile.cuh"

namespace qvl
{

enum { INPUT_SLAB = LORA_WARPS * PIECE_COLUMNS, MOST_BLOCKS_PER_SM = 4 };

// Blocks that a multiprocessor's registers are divided among.
__host__ __device__ constexpr int blocks_per_sm(int tiles, bool is_swiglu)
{
    return is_swiglu ? (tiles == 1 ? 2 : 1) : tiles == 1 ? 4 : tiles <= 3 ? 2 : 1;
}

struct input_params {
    tile_set set;
    const bf16 *du;
    float *da_parts; // [chunk, tile of the set, 8, in]
    int64_t T, in, du_stride;
    int chunk_rows;
    mask_key key;
    const bf16 *x; // [T, in]
    int64_t x_stride;
    bf16 *dx;            // [T, in], added to; NULL: only dA
    const bf16 *gate_up; // of the fused pass: [T, 2 in]; dx is then read only, x not at all
    bf16 *dgate_up;
};

// Where a lane is.
struct input_place {
    int g, t;
    int64_t piece_col, col, row0, last;
};

static __device__ __forceinline__ input_place find_input_place(const input_params &p)
{
    const int lane = threadIdx.x % 32;
    input_place at;
    at.g = lane / 4;
    at.t = lane % 4;
    at.piece_col = (int64_t)blockIdx.x * INPUT_SLAB + threadIdx.x / 32 * PIECE_COLUMNS;
    at.col = at.piece_col + 8 * at.t;
    at.row0 = (int64_t)blockIdx.y * p.chunk_rows;
    at.last = min(p.T, at.row0 + p.chunk_rows);
    return at;
}

// A as the second operand of du A: word j of lane (g, t) is ranks 2 t, 2 t + 1 of row g of tile j.
static __device__ __forceinline__ void load_a(uint32_t a[4], const bf16 *from, int64_t in,
                                              const input_place &at)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int64_t col = at.piece_col + 8 * (at.g / 2) + 2 * j + at.g % 2;
        const bool is_there = col < in;
        const unsigned short low =
            is_there ? __bfloat16_as_ushort(from[2 * at.t * in + col]) : (unsigned short)0;
        const unsigned short high =
            is_there ? __bfloat16_as_ushort(from[(2 * at.t + 1) * in + col]) : (unsigned short)0;
        a[j] = (uint32_t)low | (uint32_t)high << 16;
    }
}

// sum += c where the mask keeps it; c = 0.
template <bool DROPS>
static __device__ __forceinline__ void add_kept(float sum[4][4], float c[4][4],
                                                const uint32_t drop[2][4])
{
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t bits = e % 2 ? 0xffff0000u : 0xffffu;
            if (!DROPS || !(drop[e / 2][j] & bits))
                sum[j][e] += c[j][e];
            c[j][e] = 0.0f;
        }
}

// What all columns of a strip share, for rows g and g + 8.
template <int TILES> struct strip_rows {
    uint32_t du[TILES][2], token[2], sample[2];
};

template <int TILES, bool DROPS>
static __device__ __forceinline__ void load_rows(strip_rows<TILES> *to, const input_params &p,
                                                 const input_place &at, int64_t row)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        const bool is_there = r < at.last;
#pragma unroll
        for (int i = 0; i < TILES; i++)
            to->du[i][half] =
                is_there
                    ? *(const uint32_t *)(p.du + r * p.du_stride + p.set.tile[i].column + 2 * at.t)
                    : 0u;
        if (DROPS) {
            to->token[half] = (uint32_t)p.key.token[is_there ? r : at.row0];
            to->sample[half] = (uint32_t)p.key.sample[is_there ? r : at.row0];
        }
    }
}

// All tiles on one piece of x: dA, and what the adapters add to dx (before the scale of dropout).
template <int TILES, bool DROPS, bool HAS_DX>
static __device__ __forceinline__ void run_piece(float da[TILES][2][4], float sum[4][4],
                                                 const piece &x, const uint32_t a[TILES][4],
                                                 const input_params &p, const input_place &at,
                                                 const strip_rows<TILES> &rows)
{
    uint32_t drop[2][4] = {};
    float c[4][4] = {};
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        const rank_tile &tile = p.set.tile[i];
        const uint32_t *du = rows.du[i];
        if (i == 0 || tile.module != p.set.tile[i - 1].module) {
            if (HAS_DX && i > 0)
                add_kept<DROPS>(sum, c, drop);
#pragma unroll
            for (int half = 0; half < 2; half++)
                if (DROPS)
                    drop_words(drop[half], p.key, (uint32_t)(at.col / 8), tile.module,
                               rows.token[half], rows.sample[half]);
        }
        const uint32_t turned[2] = {turn(du[0]), turn(du[1])};
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            uint32_t w[2][2];
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    w[half][e] = turn(DROPS ? x.word[half][j + e] & ~drop[half][j + e]
                                            : x.word[half][j + e]);
            product_16(da[i][j / 2], w[0][0], w[0][1], w[1][0], w[1][1], turned[0], turned[1]);
        }
        if (HAS_DX)
#pragma unroll
            for (int j = 0; j < 4; j++)
                product_8(c[j], du[0], du[1], a[i][j]);
    }
    if (HAS_DX)
        add_kept<DROPS>(sum, c, drop);
}

// Row g of tile j of a piece is column 8 (g / 2) + 2 j + g % 2 of it.
template <int TILES>
static __device__ __forceinline__ void store_da(const input_params &p, const input_place &at,
                                                float da[TILES][2][4], float scale)
{
    float *to = p.da_parts + (int64_t)blockIdx.y * TILES * TILE_RANK * p.in;
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t col = at.piece_col + 8 * (at.g / 2) + 2 * j + at.g % 2;
            if (col < p.in)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    to[(i * TILE_RANK + 2 * at.t + e) * p.in + col] =
                        scale * da[i][j / 2][j % 2 * 2 + e];
        }
}

// ---- pieces ahead -------------------------------------------------------------------------------
// While a strip of rows is worked on, the next two are on their way into shared memory. A lane
// reads only what it copied itself, so nothing waits for other threads.

enum { STAGES = 3 };

template <int ARRAYS> struct ahead {
    uint4 *slots; // [STAGES, ARRAYS, 2, LORA_THREADS]

    __device__ __forceinline__ uint4 *slot(int stage, int array, int half) const
    {
        return slots + ((stage * ARRAYS + array) * 2 + half) * LORA_THREADS + threadIdx.x;
    }
    // Rows row, row + 8 of [last, in], this lane's columns; zeros where there are none.
    __device__ __forceinline__ void fetch(int stage, int array, const bf16 *from, int64_t stride,
                                          int64_t row, const input_place &at, int64_t in) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t r = row + 8 * half;
            const bool is_valid = r < at.last && at.col < in;
            copy16_async(slot(stage, array, half), is_valid ? from + r * stride + at.col : from,
                         is_valid);
        }
    }
    __device__ __forceinline__ piece take(int stage, int array) const
    {
        piece p;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint4 raw = *slot(stage, array, half);
            p.word[half][0] = raw.x;
            p.word[half][1] = raw.y;
            p.word[half][2] = raw.z;
            p.word[half][3] = raw.w;
        }
        return p;
    }
};

template <int ARRAYS> static constexpr size_t ahead_bytes()
{
    return (size_t)STAGES * ARRAYS * 2 * LORA_THREADS * sizeof(uint4);
}

// ---- x and dx -----------------------------------------------------------------------------------

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
static __global__ void __launch_bounds__(LORA_THREADS, blocks_per_sm(TILES, false))
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

// ---- through SwiGLU -----------------------------------------------------------------------------

// s = sigmoid(gate), and h as the forward pass rounded it.
static __device__ __forceinline__ void make_h(piece *h, float s[2][8], const piece &gate,
                                              const piece &up)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t g = gate.word[half][j], u = up.word[half][j];
            s[half][2 * j] = sigmoid<bf16>(low_half(g));
            s[half][2 * j + 1] = sigmoid<bf16>(high_half(g));
            h->word[half][j] = pack_halves(low_half(g) * s[half][2 * j] * low_half(u),
                                           high_half(g) * s[half][2 * j + 1] * high_half(u));
        }
}

static __device__ __forceinline__ void store_gate_up(const input_params &p, const input_place &at,
                                                     int64_t row, const piece &gate,
                                                     const piece &up, const piece &dh,
                                                     const float sum[4][4], const float s[2][8],
                                                     float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        float dgate[8], dup[8];
        if (r >= at.last || at.col >= p.in)
            continue;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int j = i / 2;
            const uint32_t g = gate.word[half][j], u = up.word[half][j], d = dh.word[half][j];
            const float whole =
                (i % 2 ? high_half(d) : low_half(d)) + scale * sum[j][2 * half + i % 2];
            swiglu_gradient(&dgate[i], &dup[i], whole, i % 2 ? high_half(g) : low_half(g),
                            i % 2 ? high_half(u) : low_half(u), s[half][i]);
        }
        bf16 *to = p.dgate_up + r * 2 * p.in + at.col;
        pack8<bf16>::store(to, dgate);
        pack8<bf16>::store(to + p.in, dup);
    }
}

template <int TILES, bool DROPS>
static __global__ void __launch_bounds__(LORA_THREADS, blocks_per_sm(TILES, true))
    lora_swiglu_kernel(input_params p)
{
    extern __shared__ uint4 stages[];
    const ahead<3> in = {stages};
    const input_place at = find_input_place(p);
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
        const piece gate = in.take(stage, 0), up = in.take(stage, 1);
        make_h(&h, s, gate, up);
        run_piece<TILES, DROPS, true>(da, sum, h, a, p, at, rows);
        store_gate_up(p, at, row, gate, up, in.take(stage, 2), sum, s, scale);
        stage = (stage + 1) % STAGES;
    }
    wait_async<0>();
    store_da<TILES>(p, at, da, scale);
}

// ---- sums and launches --------------------------------------------------------------------------

struct input_targets {
    float *da[MAX_TILES]; // first row of the tile
    int ranks[MAX_TILES]; // rows of it that exist
};

// Item: tile, rank, column.
static __global__ void __launch_bounds__(LORA_THREADS)
    lora_inputs_sum_kernel(input_targets to, const float *parts, int n_chunks, int n_tiles,
                           int64_t in)
{
    const int64_t item = (int64_t)blockIdx.x * LORA_THREADS + threadIdx.x;
    const int64_t column = item % in, r = item / in % TILE_RANK;
    const int tile = (int)(item / in / TILE_RANK);
    follow();
    if (tile >= n_tiles || r >= to.ranks[tile])
        return;
    float sum = 0.0f;
    for (int c = 0; c < n_chunks; c++)
        sum += parts[(int64_t)c * n_tiles * TILE_RANK * in + item];
    to.da[tile][r * in + column] += sum;
}

static cudaError_t launch_kernel(void (*kernel)(input_params), bool *is_set, size_t bytes,
                                 const input_params &p, dim3 grid, cudaStream_t stream)
{
    if (!*is_set) {
        const cudaError_t code =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        if (code != cudaSuccess)
            return code;
        *is_set = true;
    }
    return launch(kernel, grid, LORA_THREADS, bytes, stream, p);
}

template <int TILES, bool DROPS>
static cudaError_t launch_pass(const input_params &p, dim3 grid, cudaStream_t stream)
{
    static bool is_set[3]; // of the three kernels below
    if (p.gate_up)
        return launch_kernel(lora_swiglu_kernel<TILES, DROPS>, &is_set[0], ahead_bytes<3>(), p,
                             grid, stream);
    if (p.dx)
        return launch_kernel(lora_inputs_kernel<TILES, DROPS, true>, &is_set[1], ahead_bytes<2>(),
                             p, grid, stream);
    return launch_kernel(lora_inputs_kernel<TILES, DROPS, false>, &is_set[2], ahead_bytes<1>(), p,
                         grid, stream);
}

template <int TILES>
static cudaError_t launch_inputs(const input_params &p, const input_targets &to,
                                 cudaStream_t stream)
{
    const int n_chunks = (int)divide_up(p.T, p.chunk_rows);
    const dim3 grid((unsigned)divide_up(p.in, INPUT_SLAB), (unsigned)n_chunks);
    const cudaError_t code = p.key.threshold ? launch_pass<TILES, true>(p, grid, stream)
                                             : launch_pass<TILES, false>(p, grid, stream);
    if (code != cudaSuccess)
        return code;
    return launch(lora_inputs_sum_kernel,
                  dim3((unsigned)divide_up(TILES * TILE_RANK * p.in, LORA_THREADS)), LORA_THREADS,
                  0, stream, to, p.da_parts, n_chunks, TILES, p.in);
}

static input_targets targets_of(const qvl_linear *lin, int64_t first, int n)
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

// Chunks and room for their parts.
static qvl_status prepare(input_params *p, qvl_device *dev, const qvl_linear *lin, int64_t T,
                          const qvl_dropout *dropout, size_t used, qvl_err *err)
{
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    const int64_t most = n_tiles < MAX_TILES ? n_tiles : MAX_TILES;
    void *memory = NULL;
    p->chunk_rows = (int)chunk_rows_for(
        T, divide_up(lin->in, INPUT_SLAB),
        blocks_per_sm((int)most, p->gate_up != NULL) * state_of(dev)->n_sms, T + PIECE_ROWS);
    p->T = T;
    p->in = lin->in;
    p->du_stride = tail_used(lin);
    p->key = key_of(dropout);
    const qvl_status rc = scratch(
        dev, &memory, &used,
        (size_t)(divide_up(T, p->chunk_rows) * most * lin->in * TILE_RANK) * sizeof(float), err);
    p->da_parts = (float *)memory;
    return rc;
}

static cudaError_t launch_tiles(input_params *p, const qvl_linear *lin, int64_t first,
                                cudaStream_t stream)
{
    p->set = pick_tiles(lin, first);
    const input_targets to = targets_of(lin, first, p->set.n);
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
    input_params p = {};
    cudaError_t code = cudaSuccess;
    const qvl_status rc = prepare(&p, dev, lin, args->T, args->dropout, used, err);
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

bool lora_can_fuse_swiglu(const qvl_linear *lin)
{
    return lin->n_adapters * tiles_of(lin) <= MAX_TILES;
}

qvl_status lora_backward_swiglu(qvl_device *dev, const qvl_mlp_backward_args *args, const bf16 *du,
                                size_t used, qvl_err *err)
{
    input_params p = {};
    p.gate_up = (const bf16 *)args->gate_up;
    const qvl_status rc = prepare(&p, dev, args->linear, args->T, args->dropout, used, err);
    if (rc != QVL_OK)
        return rc;
    p.du = du;
    p.dx = (bf16 *)args->dh;
    p.dgate_up = (bf16 *)args->dgate_up;
    return check(launch_tiles(&p, args->linear, 0, compute_of(dev)), "mlp backward", err);
}

} // namespace qvl
