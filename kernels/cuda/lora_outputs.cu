// Adapters of a bf16 linear, backward, the side of the outputs: one pass over dy gives
//
//   du_i = scale dy_i B_i         dB_i += scale dy_i^T u_i
//
// A block has a slab of columns and a chunk of rows of one adapter's part of dy. What it sums over
// columns (du) and over rows (dB) are parts that a second kernel adds up, in a fixed order.
#include "kernels/cuda/lora_tiles.cuh"

namespace qvl
{

enum {
    MOST_PIECES = 2,                            // of dy beside each other in a warp: 2 or 1
    WARPS_COLUMNS = LORA_WARPS * PIECE_COLUMNS, // of a slab, for each of the pieces
    OUTPUT_ROWS = 384,                          // of a block, at most: bounds its shared memory
    BLOCKS_PER_SM = 3
};

// Slabs of one adapter: columns of its part of dy.
struct output_part {
    const bf16 *dy; // first column
    const float *b; // [out, rank]
    float *db;      // [out, rank]
    int64_t out;
    int64_t first_out; // outputs of the adapters before it
    int column;        // of its u in the tail
    int first_slab;    // of the adapter among all slabs
};

struct output_params {
    output_part part[QVL_MAX_FUSED];
    int pieces, n_parts, n_slabs, n_chunks, chunk_rows, rank, n_tiles; // tiles of an adapter
    int64_t T, dy_stride, x_stride, out_total;                         // sum of all parts' out
    const bf16 *u;                                                     // tail of x
    float *du_parts;                                                   // [slab, tile, T, 8]
    float *db_parts; // [chunk, tile, out_total, 8]
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

// Row g of tile j of a piece is column 8 (g / 2) + 2 j + g % 2 of it.
template <int PIECES>
static __device__ __forceinline__ void store_db(const output_params &p, const output_part &part,
                                                float db[PIECES][2][4], int64_t warp_col, int tile)
{
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float *to =
        p.db_parts +
        (((int64_t)blockIdx.y * p.n_tiles + tile) * p.out_total + part.first_out) * TILE_RANK +
        2 * t;
#pragma unroll
    for (int n = 0; n < PIECES; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t col = warp_col + n * PIECE_COLUMNS + 8 * (g / 2) + 2 * j + g % 2;
            if (col < part.out)
                *(float2 *)(to + col * TILE_RANK) =
                    make_float2(db[n][j / 2][j % 2 * 2], db[n][j / 2][j % 2 * 2 + 1]);
        }
}

// A block: one slab of columns, one chunk of rows, one rank tile (blockIdx x, y, z).
template <int PIECES>
static __global__ void __launch_bounds__(LORA_THREADS, BLOCKS_PER_SM)
    lora_outputs_kernel(output_params p)
{
    extern __shared__ float du_rows[]; // [warp, chunk_rows, 8]
    follow();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int slab = blockIdx.x, tile = blockIdx.z;
    const output_part part = p.part[part_of_slab(p, slab)];
    const int64_t row0 = (int64_t)blockIdx.y * p.chunk_rows;
    const int64_t last = min(p.T, row0 + p.chunk_rows);
    const int64_t warp_col = (int64_t)(slab - part.first_slab) * (PIECES * WARPS_COLUMNS) +
                             warp * PIECES * PIECE_COLUMNS;
    const int64_t col0 = warp_col + 8 * t;
    const bf16 *u = p.u + part.column + tile * TILE_RANK + 2 * t;
    uint32_t b[PIECES][4];
    float db[PIECES][2][4] = {};
#pragma unroll
    for (int n = 0; n < PIECES; n++)
        load_b(b[n], part, col0 + n * PIECE_COLUMNS, tile * TILE_RANK + g, p.rank, p.scale);

    // on their way while the strip before theirs is worked on
    piece next[PIECES];
    uint32_t next_u[2];
    auto fetch = [&](int64_t row) {
#pragma unroll
        for (int n = 0; n < PIECES; n++)
            load_piece(&next[n], part.dy, p.dy_stride, row, last, col0 + n * PIECE_COLUMNS,
                       part.out);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t r = row + 8 * half;
            next_u[half] = r < last ? *(const uint32_t *)(u + r * p.x_stride) : 0u;
        }
    };
    fetch(row0 + g);
    for (int64_t row = row0 + g; row - g < last; row += PIECE_ROWS) {
        float du[4] = {};
        piece dy[PIECES];
        const uint32_t u_turned[2] = {turn(next_u[0]), turn(next_u[1])};
#pragma unroll
        for (int n = 0; n < PIECES; n++)
            dy[n] = next[n];
        fetch(row + PIECE_ROWS);
#pragma unroll
        for (int n = 0; n < PIECES; n++) {
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
    store_db<PIECES>(p, part, db, warp_col, tile);
    __syncthreads();
    float *du_to = p.du_parts + (((int64_t)slab * p.n_tiles + tile) * p.T + row0) * TILE_RANK;
    for (int i = threadIdx.x; i < (int)(last - row0) * TILE_RANK; i += LORA_THREADS) {
        float sum = 0.0f;
        for (int w = 0; w < LORA_WARPS; w++)
            sum += du_rows[w * p.chunk_rows * TILE_RANK + i];
        du_to[i] = sum;
    }
}

// Item: adapter, tile, row, rank; slabs are added.
static __device__ __forceinline__ void sum_du(const output_params &p, int64_t item, bf16 *du,
                                              int64_t du_stride)
{
    const int64_t r = item % TILE_RANK, t = item / TILE_RANK % p.T;
    const int which = (int)(item / TILE_RANK / p.T), index = which / p.n_tiles;
    const int tile = which % p.n_tiles;
    if (index >= p.n_parts)
        return;
    const int end = index + 1 < p.n_parts ? p.part[index + 1].first_slab : p.n_slabs;
    float sum = 0.0f;
    for (int s = p.part[index].first_slab; s < end; s++)
        sum += p.du_parts[(((int64_t)s * p.n_tiles + tile) * p.T + t) * TILE_RANK + r];
    du[t * du_stride + p.part[index].column + tile * TILE_RANK + r] = __float2bfloat16(sum);
}

// Item: tile, output, rank; chunks are added.
static __device__ __forceinline__ void sum_db(const output_params &p, int64_t item)
{
    const int64_t r = item % TILE_RANK, column = item / TILE_RANK % p.out_total;
    const int tile = (int)(item / TILE_RANK / p.out_total);
    if (tile >= p.n_tiles || tile * TILE_RANK + r >= p.rank)
        return;
    float sum = 0.0f;
    for (int c = 0; c < p.n_chunks; c++)
        sum += p.db_parts[(((int64_t)c * p.n_tiles + tile) * p.out_total + column) * TILE_RANK + r];
    int index = 0;
    while (index + 1 < p.n_parts && column >= p.part[index + 1].first_out)
        index++;
    const output_part &part = p.part[index];
    part.db[(column - part.first_out) * p.rank + tile * TILE_RANK + r] += p.scale * sum;
}

// The first blocks add up du, the others db.
static __global__ void __launch_bounds__(LORA_THREADS)
    lora_outputs_sum_kernel(output_params p, bf16 *du, int64_t du_stride, int n_du_blocks)
{
    const int block = blockIdx.x;
    follow();
    if (block < n_du_blocks)
        sum_du(p, (int64_t)block * LORA_THREADS + threadIdx.x, du, du_stride);
    else
        sum_db(p, (int64_t)(block - n_du_blocks) * LORA_THREADS + threadIdx.x);
}

static int slabs_of(const qvl_linear *lin, int pieces)
{
    int n = 0;
    for (int i = 0; i < lin->n_adapters; i++)
        n += (int)divide_up(lin->adapters[i].out, pieces * WARPS_COLUMNS);
    return n;
}

// Wide slabs read u less often; narrow ones make enough blocks of few columns.
static int pieces_for(const qvl_device *dev, const qvl_linear *lin, int64_t T)
{
    const int64_t slots = BLOCKS_PER_SM * state_of(dev)->n_sms;
    int pieces = MOST_PIECES;
    while (pieces > 1 && slabs_of(lin, pieces) * tiles_of(lin) * divide_up(T, LEAST_ROWS) < slots)
        pieces /= 2;
    return pieces;
}

static output_params describe(const qvl_device *dev, const qvl_linear_backward_args *args)
{
    const qvl_linear *lin = args->linear;
    output_params p = {};
    p.pieces = pieces_for(dev, lin, args->T);
    for (int i = 0; i < lin->n_adapters; i++) {
        const qvl_adapter *a = &lin->adapters[i];
        p.part[i] = {(const bf16 *)args->dy + a->out_offset, a->b,     a->db, a->out, p.out_total,
                     (int)(i * tiles_of(lin) * TILE_RANK),   p.n_slabs};
        p.n_slabs += (int)divide_up(a->out, p.pieces * WARPS_COLUMNS);
        p.out_total += a->out;
    }
    p.n_parts = lin->n_adapters;
    p.rank = (int)lin->rank;
    p.n_tiles = (int)tiles_of(lin);
    p.chunk_rows = (int)chunk_rows_for(args->T, (int64_t)p.n_slabs * p.n_tiles,
                                       BLOCKS_PER_SM * state_of(dev)->n_sms, OUTPUT_ROWS);
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
    const size_t shared = (size_t)LORA_WARPS * p.chunk_rows * TILE_RANK * sizeof(float);
    const int n_du_blocks = (int)divide_up(p.T * p.n_tiles * p.n_parts * TILE_RANK, LORA_THREADS);
    const int n_db_blocks = (int)divide_up(p.out_total * p.n_tiles * TILE_RANK, LORA_THREADS);
    void (*kernel)(output_params) =
        p.pieces == 1 ? lora_outputs_kernel<1> : lora_outputs_kernel<MOST_PIECES>;
    static bool is_set[MOST_PIECES + 1];
    cudaError_t code = cudaSuccess;
    if (!is_set[p.pieces])
        code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    LORA_WARPS * OUTPUT_ROWS * TILE_RANK * (int)sizeof(float));
    is_set[p.pieces] = code == cudaSuccess;
    if (code == cudaSuccess)
        code = launch(kernel, dim3((unsigned)p.n_slabs, (unsigned)p.n_chunks, (unsigned)p.n_tiles),
                      LORA_THREADS, shared, stream, p);
    if (code == cudaSuccess)
        code = launch(lora_outputs_sum_kernel, dim3((unsigned)(n_du_blocks + n_db_blocks)),
                      LORA_THREADS, 0, stream, p, du, du_stride, n_du_blocks);
    return code;
}

size_t lora_outputs_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    const int64_t R8 = divide_up(limits->rank, TILE_RANK) * TILE_RANK;
    const int64_t widest = MOST_PIECES * WARPS_COLUMNS,
                  slots = BLOCKS_PER_SM * state_of(dev)->n_sms;
    const int64_t wide = (divide_up(limits->out_max, widest) + QVL_MAX_FUSED) * limits->tokens;
    // with narrow slabs, fewer than slots wide ones of LEAST_ROWS rows are cut into MOST_PIECES
    // each
    const int64_t narrow = slots * LEAST_ROWS * MOST_PIECES;
    const size_t du = (size_t)(wide > narrow ? wide : narrow);
    const size_t db = parts_bound(limits->tokens, limits->out_max, widest, slots, OUTPUT_ROWS);
    return (du + db) * (size_t)R8 * sizeof(float) + 2 * 256;
}

qvl_status lora_backward_outputs(qvl_device *dev, const qvl_linear_backward_args *args, bf16 **du,
                                 size_t *used, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    output_params p = describe(dev, args);
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

} // namespace qvl
