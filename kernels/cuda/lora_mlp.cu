// Backward of the MLP's inner part in one pass (lora_swiglu.cuh), with the adapters of down and,
// where dgate and dup are made, the side of the outputs of gate's and up's (lora_outputs.cuh)
//
//   du = scale dgate B       dB += scale dgate^T u
//
// for ranks up to 8.
#include "kernels/cuda/lora_backward.cuh"
#include "kernels/cuda/lora_swiglu.cuh"
#include "kernels/cuda/slab_ring.cuh"

namespace qvl
{

// Blocks that a multiprocessor's registers are divided among.
enum { MLP_BLOCKS_PER_SM = 2 };

struct mlp_params {
    input_params in;   // of down
    output_params out; // of gate and up
    int part_of[2];    // part of gate, of up; -1: without adapter
};

// What all columns of a strip share; copied ahead like the pieces, but for the whole block.
struct strip_info {
    uint32_t du[PIECE_ROWS][TILE_RANK / 2];
    uint32_t u[2][PIECE_ROWS][TILE_RANK / 2]; // of gate, of up
    uint32_t token[PIECE_ROWS], sample[PIECE_ROWS];
};

enum { DU_VALUES = PIECE_ROWS * TILE_RANK }; // of a strip, of gate or up

template <bool DROPS>
static __device__ __forceinline__ void fetch_info(strip_info *to, const mlp_params &p,
                                                  const input_place &at, int64_t first)
{
    const int i = threadIdx.x, which = i / PIECE_ROWS, r = i % PIECE_ROWS;
    const int64_t row = first + r;
    const bool is_there = row < at.last;
    if (which == 0) {
        copy16_async(to->du[r],
                     p.in.du + (is_there ? row : at.row0) * p.in.du_stride +
                         p.in.set.tile[0].column,
                     is_there);
    } else if (which <= 2) {
        const int part = p.part_of[which - 1];
        copy16_async(to->u[which - 1][r],
                     p.out.u + (is_there ? row : at.row0) * p.out.x_stride +
                         (part < 0 ? 0 : p.out.part[part].column),
                     is_there && part >= 0);
    } else if (DROPS && which <= 4) {
        const int32_t *from = which == 3 ? p.in.key.token : p.in.key.sample;
        copy4_async(which == 3 ? &to->token[r] : &to->sample[r], from + (is_there ? row : at.row0),
                    is_there);
    }
}

template <bool DROPS>
static __device__ __forceinline__ strip_rows<1> take_rows(const strip_info &from,
                                                          const input_place &at)
{
    strip_rows<1> rows;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = at.g + 8 * half;
        rows.du[0][half] = from.du[r][at.t];
        rows.token[half] = DROPS ? from.token[r] : 0;
        rows.sample[half] = DROPS ? from.sample[r] : 0;
    }
    return rows;
}

// Shared memory of a block.
struct mlp_shared {
    uint4 pieces[RING_STAGES * 3 * SLAB_SLOTS];
    strip_info info[RING_STAGES];
    float du[2][LORA_WARPS][2][DU_VALUES]; // of every other strip; of gate, of up
};
static_assert(sizeof(mlp_shared) <= MOST_SHARED_BYTES, "not on every GPU");

// One strip of one side.
static __device__ __forceinline__ void run_side(float *du_to, float db[2][4], const piece &dy,
                                                const uint32_t b[4], const uint32_t u[][4],
                                                const input_place &at)
{
    const uint32_t turned[2] = {turn(u[at.g][at.t]), turn(u[at.g + 8][at.t])};
    float du[4] = {};
    run_outputs(du, db, dy.word, b, turned);
    *(float2 *)(du_to + at.g * TILE_RANK + 2 * at.t) = make_float2(du[0], du[1]);
    *(float2 *)(du_to + (at.g + 8) * TILE_RANK + 2 * at.t) = make_float2(du[2], du[3]);
}

// du of a strip, of all warps: a thread has one value.
static __device__ __forceinline__ void store_du(const mlp_params &p, const float *du,
                                                const input_place &at, int64_t first)
{
    const int side = threadIdx.x / DU_VALUES, i = threadIdx.x % DU_VALUES;
    const int part = p.part_of[side];
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < LORA_WARPS; w++)
        sum += du[w * 2 * DU_VALUES + threadIdx.x];
    if (part >= 0 && first + i / TILE_RANK < at.last) {
        const int64_t slab = p.out.part[part].first_slab + blockIdx.x;
        p.out.du_parts[(slab * p.out.T + first) * TILE_RANK + i] = sum;
    }
}

static __device__ __forceinline__ void load_sides(uint32_t b[2][4], const mlp_params &p,
                                                  const input_place &at)
{
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const output_part part = p.out.part[p.part_of[side] < 0 ? 0 : p.part_of[side]];
        load_b(b[side], part, at.col, at.g, p.part_of[side] < 0 ? 0 : p.out.rank, p.out.scale);
    }
}

static __device__ __forceinline__ void fetch_pieces(const slab_ring<3> &ring, const input_params &p,
                                                    const input_place &at, int64_t first, int stage)
{
    const int64_t col0 = (int64_t)blockIdx.x * SLAB_COLUMNS, F = p.in;
    ring.fetch(stage, 0, p.gate_up, 2 * F, first, at.last, col0, F);
    ring.fetch(stage, 1, p.gate_up + F, 2 * F, first, at.last, col0, F);
    ring.fetch(stage, 2, p.dx, F, first, at.last, col0, F);
}

static __device__ __forceinline__ void store_strip(const slab_ring<3> &ring, const input_params &p,
                                                   const input_place &at, int64_t first, int stage)
{
    const int64_t col0 = (int64_t)blockIdx.x * SLAB_COLUMNS, F = p.in;
    ring.store(stage, 0, p.dgate_up, 2 * F, first, at.last, col0, F);
    ring.store(stage, 1, p.dgate_up + F, 2 * F, first, at.last, col0, F);
}

template <bool DROPS>
static __global__ void __launch_bounds__(LORA_THREADS, MLP_BLOCKS_PER_SM)
    lora_mlp_kernel(const __grid_constant__ mlp_params p)
{
    extern __shared__ __align__(16) unsigned char memory[];
    mlp_shared &shared = *(mlp_shared *)memory;
    const slab_ring<3> ring = {shared.pieces, read_once()};
    const input_place at = find_input_place(p.in, SLAB_COLUMNS);
    const float scale = DROPS ? keep_scale(p.in.key.threshold) : 1.0f;
    const int warp = threadIdx.x / 32;
    uint32_t a[1][4], b[2][4];
    float da[1][2][4] = {}, db[2][1][2][4] = {};
    // only du is of the kernel before this one; dh is of the product before that
    load_a(a[0], p.in.set.tile[0].a, p.in.in, at);
    load_sides(b, p, at);
    for (int stage = 0; stage < RING_STAGES; stage++)
        fetch_pieces(ring, p.in, at, at.row0 + stage * PIECE_ROWS, stage);
    follow();
    for (int stage = 0; stage < RING_STAGES; stage++) {
        fetch_info<DROPS>(&shared.info[stage], p, at, at.row0 + stage * PIECE_ROWS);
        commit_async();
    }
    wait_async<RING_STAGES - 1>();
    __syncthreads(); // the first strip is there
    int stage = 0, turn_of = 0;
    for (int64_t first = at.row0; first < at.last; first += PIECE_ROWS) {
        const strip_info &info = shared.info[stage];
        piece h, gate = ring.take(stage, 0), up = ring.take(stage, 1);
        float sum[4][4] = {}, s[2][8];
        make_h(&h, s, gate, up);
        run_piece<1, DROPS, true>(da, sum, h, a, p.in, at, take_rows<DROPS>(info, at));
        make_gradients(&gate, &up, ring.take(stage, 2), sum, s, scale);
        ring.put(stage, 0, gate);
        ring.put(stage, 1, up);
        run_side(shared.du[turn_of][warp][0], db[0][0], gate, b[0], info.u[0], at);
        run_side(shared.du[turn_of][warp][1], db[1][0], up, b[1], info.u[1], at);
        wait_async<RING_STAGES - 2>();
        __syncthreads(); // all of this strip is done, the next one is there
        store_du(p, shared.du[turn_of][0][0], at, first);
        store_strip(ring, p.in, at, first, stage);
        fetch_pieces(ring, p.in, at, first + RING_STAGES * PIECE_ROWS, stage);
        fetch_info<DROPS>(&shared.info[stage], p, at, first + RING_STAGES * PIECE_ROWS);
        commit_async();
        stage = (stage + 1) % RING_STAGES;
        turn_of ^= 1;
    }
    wait_async<0>();
    __syncthreads(); // nobody reads the pieces any more
    store_da<1>(p.in, at, da, scale, (float *)shared.pieces + warp * ROOM);
#pragma unroll
    for (int side = 0; side < 2; side++)
        if (p.part_of[side] >= 0)
            store_db<1>(p.out, p.out.part[p.part_of[side]], db[side], at.piece_col, 0);
}

// ---- launches -----------------------------------------------------------------------------------

static cudaError_t launch_mlp(const mlp_params &p, cudaStream_t stream)
{
    static bool is_set[2];
    const bool drops = p.in.key.threshold != 0;
    return launch_large(drops ? lora_mlp_kernel<true> : lora_mlp_kernel<false>, &is_set[drops],
                        sizeof(mlp_shared), p, input_grid(p.in, SLAB_COLUMNS), LORA_THREADS,
                        stream);
}

bool lora_can_fuse_mlp(const qvl_mlp_backward_args *args)
{
    const qvl_linear *down = args->down, *gate_up = args->gate_up_proj;
    return down->n_adapters == 1 && down->rank <= TILE_RANK && gate_up->n_adapters > 0 &&
           gate_up->rank <= TILE_RANK;
}

// After prepare_down, whose chunks they have: the parts of du and dB are those of the pass' blocks.
static void describe_gate_up(mlp_params *p, const qvl_mlp_backward_args *args)
{
    const qvl_linear *lin = args->gate_up_proj;
    const int slabs = (int)divide_up(args->F, SLAB_COLUMNS);
    output_params *out = &p->out;
    p->part_of[0] = p->part_of[1] = -1;
    for (int i = 0; i < lin->n_adapters; i++) {
        const qvl_adapter *a = &lin->adapters[i];
        out->part[i] = {NULL, a->b, a->db, a->out, out->out_total, i * TILE_RANK, out->n_slabs};
        out->n_slabs += slabs;
        out->out_total += a->out;
        p->part_of[a->out_offset != 0] = i;
    }
    out->n_parts = lin->n_adapters;
    out->n_chunks = (int)divide_up(args->T, p->in.chunk_rows);
    out->n_tiles = 1;
    out->rank = (int)lin->rank;
    out->T = args->T;
    out->x_stride = args->x_stride;
    out->u = (const bf16 *)args->x + lin->in;
    out->scale = lin->scale;
}

// Scratch: du of gate and up, which stays, then the parts.
static qvl_status prepare_mlp(mlp_params *p, qvl_device *dev, const qvl_mlp_backward_args *args,
                              const output_params *down, size_t *used, qvl_err *err)
{
    const int64_t du_stride = tail_used(args->gate_up_proj);
    size_t parts = 0;
    void *memory = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(scratch(dev, &memory, used, (size_t)(args->T * du_stride) * sizeof(bf16), err));
    p->out.du = (bf16 *)memory;
    p->out.du_stride = (int)du_stride;
    parts = *used;
    QVL_TRY(prepare_down(&p->in, dev, args, down, SLAB_COLUMNS, MLP_BLOCKS_PER_SM, &parts, err));
    describe_gate_up(p, args);
    QVL_TRY(scratch(dev, &memory, &parts,
                    (size_t)(p->out.n_slabs * p->out.T * TILE_RANK) * sizeof(float), err));
    p->out.du_parts = (float *)memory;
    QVL_TRY(scratch(dev, &memory, &parts,
                    (size_t)(p->out.n_chunks * p->out.out_total * TILE_RANK) * sizeof(float), err));
    p->out.db_parts = (float *)memory;
out:
    return rc;
}

qvl_status lora_backward_mlp(qvl_device *dev, const qvl_mlp_backward_args *args,
                             const output_params *down, bf16 **du_gate_up, size_t *used,
                             qvl_err *err)
{
    mlp_params p = {};
    lora_sums sums = {};
    const qvl_status rc = prepare_mlp(&p, dev, args, down, used, err);
    if (rc != QVL_OK)
        return rc;
    *du_gate_up = p.out.du;
    sums.out[sums.n_out++] = p.out;
    sums.out[sums.n_out++] = *down;
    sums.has_du = true;
    add_input_sums(&sums, args->down, 0, p.in);
    cudaError_t code = launch_mlp(p, compute_of(dev));
    if (code == cudaSuccess)
        code = launch_sums(sums, compute_of(dev));
    return check(code, "mlp backward", err);
}

// Of the widest linears that there are, as if they were an MLP's. Columns of dA's and dB's parts:
// one and two of F.
size_t lora_mlp_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    if (limits->rank > TILE_RANK)
        return 0;
    const int64_t F = limits->in_max, slots = MLP_BLOCKS_PER_SM * state_of(dev)->n_sms;
    const size_t du = (size_t)(limits->tokens * 2 * TILE_RANK) * sizeof(bf16);
    const size_t du_parts = (size_t)(2 * divide_up(F, SLAB_COLUMNS) * limits->tokens);
    const size_t columns =
        qvl_parts_bound(limits->tokens, F, SLAB_COLUMNS, slots, limits->tokens + PIECE_ROWS);
    return du + (du_parts + 3 * columns) * TILE_RANK * sizeof(float) + 4 * 256;
}

} // namespace qvl
