// The implementation lists of a oneDNN that has matmul and reorder only.
//
// Replaces the cpu_*_list.cpp files and cpu/reorder/*.cpp of oneDNN 3.7. All
// implementations are JIT-compiled, apart from the s8 weight reorders and the
// reference matmul, which stays so that an unsupported case is reported as
// "ref" by name. A reorder that the JIT does not know is refused as
// unimplemented.
#include "common/dnnl_thread.hpp"
#include "common/impl_list_item.hpp"
#include "common/memory_desc.hpp"
#include "cpu/cpu_engine.hpp"
#include "cpu/matmul/ref_matmul.hpp"
#include "cpu/matmul/ref_matmul_int8.hpp"
#include "cpu/reorder/simple_reorder.hpp"
#include "cpu/x64/jit_uni_reorder.hpp"
#include "cpu/x64/jit_uni_reorder_direct_copy.hpp"
#include "cpu/x64/matmul/brgemm_matmul.hpp"
#include "cpu/x64/matmul/brgemm_matmul_reorders.hpp"

namespace dnnl {
namespace impl {
namespace cpu {
namespace {

using matmul::ref_matmul_int8_t;
using matmul::ref_matmul_t;
using x64::matmul::brgemm_matmul_t;

const impl_list_item_t kEmpty[] = {nullptr};

// clang-format off
const impl_list_item_t kMatmul[] = {
    CPU_INSTANCE(brgemm_matmul_t<x64::avx512_core_amx>)
    CPU_INSTANCE(brgemm_matmul_t<x64::avx512_core_bf16>)
    CPU_INSTANCE(brgemm_matmul_t<x64::avx512_core_vnni>)
    CPU_INSTANCE(brgemm_matmul_t<x64::avx512_core>)
    CPU_INSTANCE(brgemm_matmul_t<x64::avx2_vnni_2>)
    CPU_INSTANCE(brgemm_matmul_t<x64::avx2_vnni>)
    CPU_INSTANCE(brgemm_matmul_t<x64::avx2>)
    CPU_INSTANCE(ref_matmul_t)
    CPU_INSTANCE(ref_matmul_int8_t)
    nullptr,
};

#define ONEGRID_REORDER(...)                            \
    impl_list_item_t(impl_list_item_t::                 \
        reorder_type_deduction_helper_t<__VA_ARGS__::pd_t>()),

// Weights of an s8 x s8 matmul, with the compensation that VNNI needs.
#define ONEGRID_S8_WEIGHTS(from, to)                                   \
    ONEGRID_REORDER(simple_reorder_t<data_type::s8, format_tag::from,  \
        data_type::s8, format_tag::to, fmt_order::keep,                \
        spec::conv_req_comp>)

const impl_list_item_t kReorder[] = {
    ONEGRID_REORDER(x64::brgemm_matmul_copy_reorder_t)
    ONEGRID_REORDER(x64::jit_uni_reorder_direct_copy_t)
    ONEGRID_REORDER(x64::jit_blk_reorder_t)
    ONEGRID_REORDER(x64::jit_uni_reorder_t)
    ONEGRID_S8_WEIGHTS(ab, BA16a16b4a)
    ONEGRID_S8_WEIGHTS(ab, BA16a32b4a)
    ONEGRID_S8_WEIGHTS(ab, BA16a48b4a)
    ONEGRID_S8_WEIGHTS(ab, BA16a64b4a)
    ONEGRID_S8_WEIGHTS(ba, BA16a16b4a)
    ONEGRID_S8_WEIGHTS(ba, BA16a32b4a)
    ONEGRID_S8_WEIGHTS(ba, BA16a48b4a)
    ONEGRID_S8_WEIGHTS(ba, BA16a64b4a)
    nullptr,
};
// clang-format on

}  // namespace

const impl_list_item_t*
cpu_engine_impl_list_t::get_concat_implementation_list() {
  return kEmpty;
}

const impl_list_item_t* cpu_engine_impl_list_t::get_sum_implementation_list() {
  return kEmpty;
}

const impl_list_item_t* cpu_engine_impl_list_t::get_reorder_implementation_list(
    const memory_desc_t*, const memory_desc_t*) {
  return kReorder;
}

const impl_list_item_t* get_matmul_impl_list(const matmul_desc_t*) {
  return kMatmul;
}

#define ONEGRID_EMPTY(kind)                                              \
  const impl_list_item_t* get_##kind##_impl_list(const kind##_desc_t*) { \
    return kEmpty;                                                       \
  }

ONEGRID_EMPTY(batch_normalization)
ONEGRID_EMPTY(binary)
ONEGRID_EMPTY(convolution)
ONEGRID_EMPTY(deconvolution)
ONEGRID_EMPTY(eltwise)
ONEGRID_EMPTY(group_normalization)
ONEGRID_EMPTY(inner_product)
ONEGRID_EMPTY(layer_normalization)
ONEGRID_EMPTY(lrn)
ONEGRID_EMPTY(pooling)
ONEGRID_EMPTY(prelu)
ONEGRID_EMPTY(reduction)
ONEGRID_EMPTY(resampling)
ONEGRID_EMPTY(rnn)
ONEGRID_EMPTY(shuffle)
ONEGRID_EMPTY(softmax)

}  // namespace cpu
}  // namespace impl
}  // namespace dnnl
