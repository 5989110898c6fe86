// Adapters of a bf16 linear (see "Tails" in ops.h). Forward, before the product:
//
//   u_i = drop_i(x) A_i^T                     one pass over x for all adapters of the group
//
// backward, around the product dx = dy W:
//
//   du_i = scale dy_i B_i,  dB_i += scale dy_i^T u_i           one pass over dy   (outputs)
//   dx += sum_i drop_i(du_i A_i),  dA_i += du_i^T drop_i(x)    one pass over x and dx   (inputs)
//
// Masks are made in registers, where the elements are. Sums over blocks go through partial results
// that a second kernel adds in a fixed order.
#include "kernels/cuda/lora_tiles.cuh"

namespace qvl
{

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    MAX_TILES = 4,                                     // rank tiles of one pass
    INPUT_SLAB = WARPS * PIECE_COLUMNS,                // columns of x of a block
    WARP_PIECES = 2,                                   // pieces of dy beside each other in a warp
    OUTPUT_SLAB = WARPS * WARP_PIECES * PIECE_COLUMNS, // columns of dy of a block
    OUTPUT_ROWS = 384 // of a block, at most: bounds its shared memory
};

// One tile of 8 ranks of one adapter.
struct rank_tile {
    const bf16 *a;   // [8, in]
    uint32_t module; // of the mask
    int column;      // in the tail
};

struct tile_set {
    rank_tile tile[MAX_TILES];
    int n;
};

static int64_t tiles_of(const qvl_linear *lin)
{
    return divide_up(lin->rank, TILE_RANK);
}

static int64_t tail_used(const qvl_linear *lin)
{
    return lin->n_adapters * tiles_of(lin) * TILE_RANK;
}

// Tiles first .. first + 3 of all tiles of the group.
static tile_set pick_tiles(const qvl_linear *lin, int64_t first)
{
    const int64_t per_adapter = tiles_of(lin), all = lin->n_adapters * per_adapter;
    tile_set set = {};
    for (int64_t i = first; i < all && set.n < MAX_TILES; i++) {
        const qvl_adapter *adapter = &lin->adapters[i / per_adapter];
        set.tile[set.n++] = {(const bf16 *)adapter->a_act + i % per_adapter * TILE_RANK * lin->in,
                             adapter->module, (int)(i * TILE_RANK)};
    }
    return set;
}

static mask_key key_of(const qvl_dropout *dropout)
{
    mask_key key = {};
    if (dropout)
        key = {dropout->threshold, dropout->seed, dropout->step, dropout->sample, dropout->token};
    return key;
}

// ---- forward ------------------------------------------------------------------------------------

// A block has 16 rows; its warps share the columns of x, 32 at a time.
template <int TILES, bool DROPS>
static __global__ void __launch_bounds__(THREADS)
    lora_u_kernel(bf16 *x, int64_t x_stride, int64_t T, int64_t in, tile_set set, mask_key key)
{
    __shared__ float parts[WARPS][TILES][PIECE_ROWS][TILE_RANK];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t row = (int64_t)blockIdx.x * PIECE_ROWS + g;
    float c[TILES][4] = {};
    uint32_t sample[2] = {}, token[2] = {};
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (DROPS && row + 8 * half < T) {
            sample[half] = (uint32_t)key.sample[row + 8 * half];
            token[half] = (uint32_t)key.token[row + 8 * half];
        }
#pragma unroll 2
    for (int64_t k0 = warp * PIECE_COLUMNS; k0 < in; k0 += INPUT_SLAB) {
        const int64_t col = k0 + 8 * t;
        piece p;
        uint32_t keep[2][4];
        load_piece(&p, x, x_stride, row, T, col, in);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            uint32_t b[4];
            load_words(b, set.tile[i].a + g * in + col, col < in);
            if (DROPS && (i == 0 || set.tile[i].module != set.tile[i - 1].module))
#pragma unroll
                for (int half = 0; half < 2; half++)
                    keep_words(keep[half], key, (uint32_t)(col / 8), set.tile[i].module,
                               token[half], sample[half]);
#pragma unroll
            for (int j = 0; j < 4; j += 2)
                product_16(c[i], DROPS ? p.word[0][j] & keep[0][j] : p.word[0][j],
                           DROPS ? p.word[1][j] & keep[1][j] : p.word[1][j],
                           DROPS ? p.word[0][j + 1] & keep[0][j + 1] : p.word[0][j + 1],
                           DROPS ? p.word[1][j + 1] & keep[1][j + 1] : p.word[1][j + 1], b[j],
                           b[j + 1]);
        }
    }
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            parts[warp][i][g + 8 * half][2 * t] = c[i][2 * half];
            parts[warp][i][g + 8 * half][2 * t + 1] = c[i][2 * half + 1];
        }
    __syncthreads();
    const float scale = DROPS ? keep_scale(key.threshold) : 1.0f;
    for (int i = threadIdx.x; i < TILES * PIECE_ROWS * TILE_RANK; i += THREADS) {
        const int tile = i / (PIECE_ROWS * TILE_RANK), r = i / TILE_RANK % PIECE_ROWS;
        const int64_t to = (int64_t)blockIdx.x * PIECE_ROWS + r;
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++)
            sum += parts[w][tile][r][i % TILE_RANK];
        if (to < T)
            x[to * x_stride + in + set.tile[tile].column + i % TILE_RANK] =
                __float2bfloat16(sum * scale);
    }
}

template <int TILES>
static cudaError_t launch_u(const qvl_linear_args &a, const tile_set &set, cudaStream_t stream)
{
    const unsigned blocks = (unsigned)divide_up(a.T, PIECE_ROWS);
    const mask_key key = key_of(a.dropout);
    bf16 *x = (bf16 *)(uintptr_t)a.x; // the tail of x is ours to write
    if (key.threshold)
        lora_u_kernel<TILES, true>
            <<<blocks, THREADS, 0, stream>>>(x, a.x_stride, a.T, a.linear->in, set, key);
    else
        lora_u_kernel<TILES, false>
            <<<blocks, THREADS, 0, stream>>>(x, a.x_stride, a.T, a.linear->in, set, key);
    return cudaGetLastError();
}

qvl_status lora_forward(qvl_device *dev, const qvl_linear_args *args, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    cudaError_t code = cudaSuccess;
    for (int64_t first = 0; first < n_tiles && code == cudaSuccess; first += MAX_TILES) {
        const tile_set set = pick_tiles(lin, first);
        switch (set.n) {
        case 1:
            code = launch_u<1>(*args, set, compute_of(dev));
            break;
        case 2:
            code = launch_u<2>(*args, set, compute_of(dev));
            break;
        case 3:
            code = launch_u<3>(*args, set, compute_of(dev));
            break;
        default:
            code = launch_u<4>(*args, set, compute_of(dev));
            break;
        }
    }
    return check(code, "adapters forward", err);
}

// ---- backward, outputs --------------------------------------------------------------------------

// Slabs of one adapter: columns of its part of dy.
struct output_part {
    const bf16 *dy; // first column
    const float *b; // [out, rank]
    float *db;      // [out, rank]
    int64_t out;
    int column;     // of its u in the tail
    int first_slab; // of the adapter among all slabs
};

struct output_params {
    output_part part[QVL_MAX_FUSED];
    int n_parts, n_slabs, n_chunks, chunk_rows, rank, n_tiles; // tiles of an adapter
    int64_t T, dy_stride, x_stride, out_total;                 // sum of all parts' out
    const bf16 *u;                                             // tail of x
    float *du_parts;                                           // [slab, tile, T, 8]
    float *db_parts;                                           // [chunk, tile, out_total, 8]
    float scale;
};

static __device__ __forceinline__ int part_of_slab(const output_params &p, int slab)
{
    int i = 0;
    while (i + 1 < p.n_parts && slab >= p.part[i + 1].first_slab)
        i++;
    return i;
}

// B as the second operand of dy B: word j of lane (g, t) is columns 8 t + 2 j, + 1 of rank g.
static __device__ __forceinline__ void load_b(uint32_t b[4], const output_part &part, int64_t col,
                                              int rank_index, int rank, float scale)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float v[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int64_t o = col + 2 * j + e;
            v[e] = o < part.out && rank_index < rank ? part.b[o * rank + rank_index] * scale : 0.0f;
        }
        b[j] = pack_halves(v[0], v[1]);
    }
}

// A block: one slab of columns, one chunk of rows, one rank tile (blockIdx x, y, z).
static __global__ void __launch_bounds__(THREADS) lora_outputs_kernel(output_params p)
{
    extern __shared__ float du_rows[]; // [warp, chunk_rows, 8]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int slab = blockIdx.x, tile = blockIdx.z, index = part_of_slab(p, slab);
    const output_part part = p.part[index];
    const int64_t row0 = (int64_t)blockIdx.y * p.chunk_rows;
    const int64_t last = min(p.T, row0 + p.chunk_rows);
    const int64_t col0 = (int64_t)(slab - part.first_slab) * OUTPUT_SLAB +
                         warp * WARP_PIECES * PIECE_COLUMNS + 8 * t;
    const bf16 *u = p.u + part.column + tile * TILE_RANK + 2 * t;
    uint32_t b[WARP_PIECES][4];
    float db[WARP_PIECES][2][4] = {};
#pragma unroll
    for (int n = 0; n < WARP_PIECES; n++)
        load_b(b[n], part, col0 + n * PIECE_COLUMNS, tile * TILE_RANK + g, p.rank, p.scale);

    for (int64_t row = row0 + g; row - g < last; row += PIECE_ROWS) {
        float du[4] = {};
        piece dy[WARP_PIECES];
        uint32_t u_turned[2];
#pragma unroll
        for (int n = 0; n < WARP_PIECES; n++)
            load_piece(&dy[n], part.dy, p.dy_stride, row, last, col0 + n * PIECE_COLUMNS, part.out);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t r = row + 8 * half;
            u_turned[half] = turn(r < last ? *(const uint32_t *)(u + r * p.x_stride) : 0u);
        }
#pragma unroll
        for (int n = 0; n < WARP_PIECES; n++) {
            const uint32_t(*w)[4] = dy[n].word;
            product_16(du, w[0][0], w[1][0], w[0][1], w[1][1], b[n][0], b[n][1]);
            product_16(du, w[0][2], w[1][2], w[0][3], w[1][3], b[n][2], b[n][3]);
#pragma unroll
            for (int j = 0; j < 2; j++)
                product_16(db[n][j], turn(w[0][2 * j]), turn(w[0][2 * j + 1]), turn(w[1][2 * j]),
                           turn(w[1][2 * j + 1]), u_turned[0], u_turned[1]);
        }
        float *to = du_rows + ((int64_t)warp * p.chunk_rows + row - row0) * TILE_RANK + 2 * t;
        *(float2 *)to = make_float2(du[0], du[1]);
        *(float2 *)(to + 8 * TILE_RANK) = make_float2(du[2], du[3]);
    }

    // row g of tile j is column 8 (g / 2) + 2 j + g % 2 of the piece
    int64_t part_column = 0;
    for (int i = 0; i < index; i++)
        part_column += p.part[i].out;
    float *db_to =
        p.db_parts + ((int64_t)blockIdx.y * p.n_tiles + tile) * p.out_total * TILE_RANK + 2 * t;
#pragma unroll
    for (int n = 0; n < WARP_PIECES; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t col = col0 - 8 * t + n * PIECE_COLUMNS + 8 * (g / 2) + 2 * j + g % 2;
            if (col < part.out)
                *(float2 *)(db_to + (part_column + col) * TILE_RANK) =
                    make_float2(db[n][j / 2][j % 2 * 2], db[n][j / 2][j % 2 * 2 + 1]);
        }
    __syncthreads();
    float *du_to = p.du_parts + (((int64_t)slab * p.n_tiles + tile) * p.T + row0) * TILE_RANK;
    for (int i = threadIdx.x; i < (int)(last - row0) * TILE_RANK; i += THREADS) {
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++)
            sum += du_rows[w * p.chunk_rows * TILE_RANK + i];
        du_to[i] = sum;
    }
}

// The first blocks add up du, the others db; a thread has one row of 8 ranks.
static __global__ void lora_outputs_sum_kernel(output_params p, bf16 *du, int du_stride,
                                               int n_du_blocks)
{
    const int per_row = p.n_tiles * p.n_parts;
    if ((int)blockIdx.x < n_du_blocks) {
        const int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = item / per_row;
        const int index = (int)(item % per_row) / p.n_tiles, tile = (int)(item % p.n_tiles);
        if (t >= p.T)
            return;
        const int end = index + 1 < p.n_parts ? p.part[index + 1].first_slab : p.n_slabs;
        float sum[8] = {};
        for (int s = p.part[index].first_slab; s < end; s++) {
            float v[8];
            pack8<float>::load(v, p.du_parts +
                                      (((int64_t)s * p.n_tiles + tile) * p.T + t) * TILE_RANK);
#pragma unroll
            for (int r = 0; r < 8; r++)
                sum[r] += v[r];
        }
        pack8<bf16>::store(du + t * du_stride + p.part[index].column + tile * TILE_RANK, sum);
        return;
    }
    const int64_t item = (int64_t)(blockIdx.x - n_du_blocks) * THREADS + threadIdx.x;
    const int64_t column = item / p.n_tiles;
    const int tile = (int)(item % p.n_tiles);
    if (column >= p.out_total)
        return;
    float sum[8] = {};
    for (int c = 0; c < p.n_chunks; c++) {
        float v[8];
        pack8<float>::load(
            v, p.db_parts + (((int64_t)c * p.n_tiles + tile) * p.out_total + column) * TILE_RANK);
#pragma unroll
        for (int r = 0; r < 8; r++)
            sum[r] += v[r];
    }
    int64_t o = column;
    int index = 0;
    while (o >= p.part[index].out)
        o -= p.part[index++].out;
    for (int r = 0; r < 8 && tile * TILE_RANK + r < p.rank; r++)
        p.part[index].db[o * p.rank + tile * TILE_RANK + r] += p.scale * sum[r];
}

// Chunks of rows so that there are about two blocks for each multiprocessor.
static int64_t chunk_rows_for(int64_t T, int64_t n_blocks_wide, int n_sms, int64_t most)
{
    const int64_t chunks = divide_up(2 * n_sms, n_blocks_wide);
    int64_t rows = divide_up(divide_up(T, chunks), PIECE_ROWS) * PIECE_ROWS;
    rows = rows < 4 * PIECE_ROWS ? 4 * PIECE_ROWS : rows;
    return rows < most ? rows : most;
}

static output_params describe_outputs(const qvl_device *dev, const qvl_linear_backward_args *args)
{
    const qvl_linear *lin = args->linear;
    output_params p = {};
    for (int i = 0; i < lin->n_adapters; i++) {
        const qvl_adapter *a = &lin->adapters[i];
        p.part[i] = {(const bf16 *)args->dy + a->out_offset, a->b,     a->db, a->out,
                     (int)(i * tiles_of(lin) * TILE_RANK),   p.n_slabs};
        p.n_slabs += (int)divide_up(a->out, OUTPUT_SLAB);
        p.out_total += a->out;
    }
    p.n_parts = lin->n_adapters;
    p.rank = (int)lin->rank;
    p.n_tiles = (int)tiles_of(lin);
    p.chunk_rows = (int)chunk_rows_for(args->T, (int64_t)p.n_slabs * p.n_tiles,
                                       state_of(dev)->n_sms, OUTPUT_ROWS);
    p.n_chunks = (int)divide_up(args->T, p.chunk_rows);
    p.T = args->T;
    p.dy_stride = lin->out;
    p.x_stride = args->x_stride;
    p.u = (const bf16 *)args->x + lin->in;
    p.scale = lin->scale;
    return p;
}

static cudaError_t launch_outputs(const output_params &p, bf16 *du, int64_t du_stride,
                                  cudaStream_t stream)
{
    const size_t shared = (size_t)WARPS * p.chunk_rows * TILE_RANK * sizeof(float);
    const int n_du_blocks = (int)divide_up(p.T * p.n_tiles * p.n_parts, THREADS);
    const int n_db_blocks = (int)divide_up(p.out_total * p.n_tiles, THREADS);
    static bool is_set = false;
    if (!is_set) {
        const cudaError_t code =
            cudaFuncSetAttribute(lora_outputs_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 WARPS * OUTPUT_ROWS * TILE_RANK * (int)sizeof(float));
        if (code != cudaSuccess)
            return code;
        is_set = true;
    }
    lora_outputs_kernel<<<dim3((unsigned)p.n_slabs, (unsigned)p.n_chunks, (unsigned)p.n_tiles),
                          THREADS, shared, stream>>>(p);
    lora_outputs_sum_kernel<<<(unsigned)(n_du_blocks + n_db_blocks), THREADS, 0, stream>>>(
        p, du, (int)du_stride, n_du_blocks);
    return cudaGetLastError();
}

qvl_status lora_backward_outputs(qvl_device *dev, const qvl_linear_backward_args *args, bf16 **du,
                                 size_t *used, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    output_params p = describe_outputs(dev, args);
    size_t reused = 0; // the parts are done with before the inputs' parts are written
    void *memory = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(scratch(dev, &memory, used, (size_t)(args->T * tail_used(lin)) * sizeof(bf16), err));
    *du = (bf16 *)memory;
    reused = *used;
    QVL_TRY(scratch(dev, &memory, &reused,
                    (size_t)(p.n_slabs * p.n_tiles * p.T * TILE_RANK) * sizeof(float), err));
    p.du_parts = (float *)memory;
    QVL_TRY(scratch(dev, &memory, &reused,
                    (size_t)(p.n_chunks * p.n_tiles * p.out_total * TILE_RANK) * sizeof(float),
                    err));
    p.db_parts = (float *)memory;
    rc = check(launch_outputs(p, *du, tail_used(lin), compute_of(dev)), "adapters backward", err);
out:
    return rc;
}

// ---- backward, inputs ---------------------------------------------------------------------------

struct input_params {
    tile_set set;
    const bf16 *x, *du;
    bf16 *dx;        // or NULL
    float *da_parts; // [chunk, tile of the set, in, 8]
    int64_t T, in, x_stride, du_stride;
    int chunk_rows;
    mask_key key;
};

// A as the second operand of du A: word j of lane (g, t) is ranks 2 t, 2 t + 1 of row g of tile j.
static __device__ __forceinline__ void load_a(uint32_t a[4], const bf16 *from, int64_t in,
                                              int64_t piece_col, int g, int t)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int64_t col = piece_col + 8 * (g / 2) + 2 * j + g % 2;
        const unsigned short low =
            col < in ? __bfloat16_as_ushort(from[2 * t * in + col]) : (unsigned short)0;
        const unsigned short high =
            col < in ? __bfloat16_as_ushort(from[(2 * t + 1) * in + col]) : (unsigned short)0;
        a[j] = (uint32_t)low | (uint32_t)high << 16;
    }
}

// sum += c where the mask keeps it.
static __device__ __forceinline__ void add_kept(float sum[4][4], const float c[4][4],
                                                const uint32_t keep[2][4], bool drops)
{
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t bits = e % 2 ? 0xffff0000u : 0xffffu;
            if (!drops || keep[e / 2][j] & bits)
                sum[j][e] += c[j][e];
        }
}

static __device__ __forceinline__ void add_to_rows(bf16 *dx, int64_t in, int64_t row, int64_t last,
                                                   int64_t col, const float sum[4][4], float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        if (r >= last || col >= in)
            continue;
        float v[8];
        pack8<bf16>::load(v, dx + r * in + col);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            v[2 * j] += scale * sum[j][2 * half];
            v[2 * j + 1] += scale * sum[j][2 * half + 1];
        }
        pack8<bf16>::store(dx + r * in + col, v);
    }
}

// A block: one slab of columns, one chunk of rows (blockIdx x, y).
template <int TILES, bool DROPS, bool HAS_DX>
static __global__ void __launch_bounds__(THREADS) lora_inputs_kernel(input_params p)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t piece_col = (int64_t)blockIdx.x * INPUT_SLAB + warp * PIECE_COLUMNS;
    const int64_t col = piece_col + 8 * t, row0 = (int64_t)blockIdx.y * p.chunk_rows;
    const int64_t last = min(p.T, row0 + p.chunk_rows);
    const float scale = DROPS ? keep_scale(p.key.threshold) : 1.0f;
    uint32_t a[TILES][4];
    float da[TILES][2][4] = {};
#pragma unroll
    for (int i = 0; i < TILES; i++)
        if (HAS_DX)
            load_a(a[i], p.set.tile[i].a, p.in, piece_col, g, t);
    for (int64_t row = row0 + g; row - g < last; row += PIECE_ROWS) {
        piece x;
        uint32_t keep[2][4] = {};
        float sum[4][4] = {}, c[4][4] = {};
        load_piece(&x, p.x, p.x_stride, row, last, col, p.in);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            const bool is_new = i == 0 || p.set.tile[i].module != p.set.tile[i - 1].module;
            uint32_t du[2];
            if (is_new) {
                if (HAS_DX && i > 0) {
                    add_kept(sum, c, keep, DROPS);
#pragma unroll
                    for (int j = 0; j < 4; j++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            c[j][e] = 0.0f;
                }
#pragma unroll
                for (int half = 0; half < 2; half++)
                    if (DROPS) {
                        const int64_t r = row + 8 * half < last ? row + 8 * half : row0;
                        keep_words(keep[half], p.key, (uint32_t)(col / 8), p.set.tile[i].module,
                                   (uint32_t)p.key.token[r], (uint32_t)p.key.sample[r]);
                    }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int64_t r = row + 8 * half;
                du[half] =
                    r < last
                        ? *(const uint32_t *)(p.du + r * p.du_stride + p.set.tile[i].column + 2 * t)
                        : 0u;
            }
            const uint32_t turned[2] = {turn(du[0]), turn(du[1])};
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                uint32_t w[2][2];
#pragma unroll
                for (int half = 0; half < 2; half++)
#pragma unroll
                    for (int e = 0; e < 2; e++)
                        w[half][e] = turn(DROPS ? x.word[half][j + e] & keep[half][j + e]
                                                : x.word[half][j + e]);
                product_16(da[i][j / 2], w[0][0], w[0][1], w[1][0], w[1][1], turned[0], turned[1]);
            }
            if (HAS_DX)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    product_8(c[j], du[0], du[1], a[i][j]);
        }
        if (HAS_DX) {
            add_kept(sum, c, keep, DROPS);
            add_to_rows(p.dx, p.in, row, last, col, sum, scale);
        }
    }
    float *to = p.da_parts + (int64_t)blockIdx.y * TILES * p.in * TILE_RANK + 2 * t;
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t at = piece_col + 8 * (g / 2) + 2 * j + g % 2;
            if (at < p.in)
                *(float2 *)(to + (i * p.in + at) * TILE_RANK) = make_float2(
                    scale * da[i][j / 2][j % 2 * 2], scale * da[i][j / 2][j % 2 * 2 + 1]);
        }
}

struct input_targets {
    float *da[MAX_TILES]; // first row of the tile
    int ranks[MAX_TILES]; // rows of it that exist
};

// A thread has one column of one tile.
static __global__ void lora_inputs_sum_kernel(input_targets to, const float *parts, int n_chunks,
                                              int n_tiles, int64_t in)
{
    const int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (item >= n_tiles * in)
        return;
    const int tile = (int)(item / in);
    const int64_t column = item % in;
    float sum[8] = {};
    for (int c = 0; c < n_chunks; c++) {
        float v[8];
        pack8<float>::load(v, parts + ((int64_t)(c * n_tiles + tile) * in + column) * TILE_RANK);
#pragma unroll
        for (int r = 0; r < 8; r++)
            sum[r] += v[r];
    }
    for (int r = 0; r < to.ranks[tile]; r++)
        to.da[tile][r * in + column] += sum[r];
}

template <int TILES, bool DROPS>
static void launch_inputs_kernel(const input_params &p, dim3 grid, cudaStream_t stream)
{
    if (p.dx)
        lora_inputs_kernel<TILES, DROPS, true><<<grid, THREADS, 0, stream>>>(p);
    else
        lora_inputs_kernel<TILES, DROPS, false><<<grid, THREADS, 0, stream>>>(p);
}

template <int TILES>
static cudaError_t launch_inputs(const input_params &p, const input_targets &to,
                                 cudaStream_t stream)
{
    const int n_chunks = (int)divide_up(p.T, p.chunk_rows);
    const dim3 grid((unsigned)divide_up(p.in, INPUT_SLAB), (unsigned)n_chunks);
    if (p.key.threshold)
        launch_inputs_kernel<TILES, true>(p, grid, stream);
    else
        launch_inputs_kernel<TILES, false>(p, grid, stream);
    lora_inputs_sum_kernel<<<(unsigned)divide_up(TILES * p.in, THREADS), THREADS, 0, stream>>>(
        to, p.da_parts, n_chunks, TILES, p.in);
    return cudaGetLastError();
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

qvl_status lora_backward_inputs(qvl_device *dev, const qvl_linear_backward_args *args,
                                const bf16 *du, size_t used, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const int64_t n_tiles = lin->n_adapters * tiles_of(lin);
    const int64_t chunk_rows = chunk_rows_for(args->T, divide_up(lin->in, INPUT_SLAB),
                                              state_of(dev)->n_sms, args->T + PIECE_ROWS);
    const int64_t most = n_tiles < MAX_TILES ? n_tiles : MAX_TILES;
    input_params p = {};
    void *memory = NULL;
    cudaError_t code = cudaSuccess;
    qvl_status rc = scratch(
        dev, &memory, &used,
        (size_t)(divide_up(args->T, chunk_rows) * most * lin->in * TILE_RANK) * sizeof(float), err);
    if (rc != QVL_OK)
        return rc;
    p.x = (const bf16 *)args->x;
    p.du = du;
    p.dx = (bf16 *)args->dx;
    p.da_parts = (float *)memory;
    p.T = args->T;
    p.in = lin->in;
    p.x_stride = args->x_stride;
    p.du_stride = tail_used(lin);
    p.chunk_rows = (int)chunk_rows;
    p.key = key_of(args->dropout);
    for (int64_t first = 0; first < n_tiles && code == cudaSuccess; first += MAX_TILES) {
        p.set = pick_tiles(lin, first);
        const input_targets to = targets_of(lin, first, p.set.n);
        switch (p.set.n) {
        case 1:
            code = launch_inputs<1>(p, to, compute_of(dev));
            break;
        case 2:
            code = launch_inputs<2>(p, to, compute_of(dev));
            break;
        case 3:
            code = launch_inputs<3>(p, to, compute_of(dev));
            break;
        default:
            code = launch_inputs<4>(p, to, compute_of(dev));
            break;
        }
    }
    return check(code, "adapters backward", err);
}

// ---- scratch ------------------------------------------------------------------------------------

// Chunks times columns, at most: chunks are about 2 n_sms / slabs, rounded up, unless they are the
// longest or the shortest that there are.
static size_t parts_bound(const qvl_device *dev, int64_t T, int64_t columns, int64_t slab,
                          int64_t most_rows)
{
    const int64_t by_blocks = 2 * state_of(dev)->n_sms * slab + columns;
    const int64_t by_rows = divide_up(T, most_rows) * columns;
    const int64_t by_least = divide_up(T, 4 * PIECE_ROWS) * columns;
    const int64_t wanted = by_blocks > by_rows ? by_blocks : by_rows;
    return (size_t)(wanted < by_least ? wanted : by_least);
}

size_t lora_scratch_bytes(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    const int64_t T = limits->tokens, R8 = divide_up(limits->rank, TILE_RANK) * TILE_RANK;
    if (limits->rank == 0 || !limits->backward)
        return 0;
    const size_t row = (size_t)R8 * sizeof(float);
    const size_t du = (size_t)(T * QVL_MAX_FUSED * R8) * sizeof(bf16);
    const size_t slabs = (size_t)divide_up(limits->out_max, OUTPUT_SLAB) + QVL_MAX_FUSED;
    const size_t outputs = slabs * (size_t)T * row +
                           parts_bound(dev, T, limits->out_max, OUTPUT_SLAB, OUTPUT_ROWS) * row;
    const size_t inputs = parts_bound(dev, T, limits->in_max, INPUT_SLAB, T + PIECE_ROWS) *
                          MAX_TILES * TILE_RANK * sizeof(float);
    return du + (outputs > inputs ? outputs : inputs) + 4 * 256;
}

} // namespace qvl
