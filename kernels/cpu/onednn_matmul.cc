#include "kernels/cpu/onednn_matmul.h"

#include <cstring>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/cpu_features.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "oneapi/dnnl/dnnl_threadpool.hpp"
#include "oneapi/dnnl/dnnl_threadpool_iface.hpp"

namespace onegrid::cpu {
namespace {

using dnnl::memory;

// The rows for which the packed layout of the weights is chosen.
constexpr int64_t kTypicalRows = 512;

// Runs oneDNN's loops on a ThreadPool.
class PoolAdapter : public dnnl::threadpool_interop::threadpool_iface {
 public:
  explicit PoolAdapter(kernels::ThreadPool& pool) : pool_(pool) {}

  int get_num_threads() const override { return pool_.size(); }
  bool get_in_parallel() const override { return pool_.InLoop(); }
  uint64_t get_flags() const override { return 0; }  // Returns when done.
  void parallel_for(int n, const std::function<void(int, int)>& fn) override {
    pool_.ParallelFor(n, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) fn(static_cast<int>(i), n);
    });
  }

 private:
  kernels::ThreadPool& pool_;
};

dnnl::matmul::primitive_desc Describe(const dnnl::engine& engine, int64_t m,
                                      int64_t n, int64_t k,
                                      const memory::desc& weights) {
  using Type = memory::data_type;
  using Tag = memory::format_tag;
  return dnnl::matmul::primitive_desc(
      engine, memory::desc({m, k}, Type::bf16, Tag::ab), weights,
      memory::desc({m, n}, Type::f32, Tag::ab));
}

absl::Status CheckImplementation(const std::string& name, int64_t m, int64_t n,
                                 int64_t k) {
  if (!absl::StrContains(name, "ref")) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("oneDNN has only ", name, " for a bf16 matmul of ", m, " x ",
                   n, " x ", k, ", expected an optimized implementation"));
}

absl::Status FromException(const dnnl::error& e) {
  return absl::InternalError(absl::StrCat("oneDNN failed: ", e.what(),
                                          " (status ",
                                          static_cast<int>(e.status), ")"));
}

}  // namespace

class Bf16Linear::Impl {
 public:
  Impl(int64_t n, int64_t k)
      : n_(n), k_(k), engine_(dnnl::engine::kind::cpu, 0) {}

  absl::Status Pack(absl::Span<const float> weights,
                    kernels::ThreadPool& pool) {
    const memory::desc any({k_, n_}, memory::data_type::bf16,
                           memory::format_tag::any);
    const auto primitive = Describe(engine_, kTypicalRows, n_, k_, any);
    implementation_ = primitive.impl_info_str();
    absl::Status usable =
        CheckImplementation(implementation_, kTypicalRows, n_, k_);
    if (!usable.ok()) return usable;
    weights_ = memory(primitive.weights_desc(), engine_);
    // Row-major [n, k] is column-major [k, n]. oneDNN does not write to it.
    memory plain({{k_, n_}, memory::data_type::f32, memory::format_tag::ba},
                 engine_, const_cast<float*>(weights.data()));
    PoolAdapter adapter(pool);
    dnnl::stream stream =
        dnnl::threadpool_interop::make_stream(engine_, &adapter);
    dnnl::reorder(plain, weights_).execute(stream, plain, weights_);
    stream.wait();
    return absl::OkStatus();
  }

  absl::Status Multiply(const float* x, int64_t m, float* out,
                        kernels::ThreadPool& pool) {
    const auto primitive = Describe(engine_, m, n_, k_, weights_.get_desc());
    absl::Status usable =
        CheckImplementation(primitive.impl_info_str(), m, n_, k_);
    if (!usable.ok()) return usable;
    if (m > rows_) {
      source_ = memory(primitive.src_desc(), engine_);
      rows_ = m;
    }
    PoolAdapter adapter(pool);
    dnnl::stream stream =
        dnnl::threadpool_interop::make_stream(engine_, &adapter);
    memory floats({{m, k_}, memory::data_type::f32, memory::format_tag::ab},
                  engine_, const_cast<float*>(x));
    memory source(primitive.src_desc(), engine_, source_.get_data_handle());
    memory result(primitive.dst_desc(), engine_, out);
    dnnl::reorder(floats, source).execute(stream, floats, source);
    dnnl::matmul(primitive).execute(stream, {{DNNL_ARG_SRC, source},
                                             {DNNL_ARG_WEIGHTS, weights_},
                                             {DNNL_ARG_DST, result}});
    stream.wait();
    return absl::OkStatus();
  }

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t bytes() const {
    return static_cast<int64_t>(weights_.get_desc().get_size());
  }
  const std::string& implementation() const { return implementation_; }

 private:
  int64_t n_;
  int64_t k_;
  dnnl::engine engine_;
  memory weights_;
  // The rows of a Multiply in bf16; grows to the most seen.
  memory source_;
  int64_t rows_ = 0;
  std::string implementation_;
};

Bf16Linear::Bf16Linear(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Bf16Linear::~Bf16Linear() = default;

absl::StatusOr<std::unique_ptr<Bf16Linear>> Bf16Linear::Create(
    absl::Span<const float> weights, int64_t n, int64_t k,
    kernels::ThreadPool& pool) {
  if (n <= 0 || k <= 0 ||
      weights.size() / static_cast<size_t>(k) != static_cast<size_t>(n) ||
      weights.size() % static_cast<size_t>(k) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("bf16 weights of [", n, ", ",
                                                   k, "] have ", weights.size(),
                                                   " elements"));
  }
  const kernels::CpuFeatures& cpu = kernels::GetCpuFeatures();
  if (!cpu.avx512bf16 && !cpu.amx_bf16) {
    return absl::FailedPreconditionError(
        "bf16 matmul needs a processor with AVX-512 BF16 or AMX BF16");
  }
  try {
    auto impl = std::make_unique<Impl>(n, k);
    absl::Status packed = impl->Pack(weights, pool);
    if (!packed.ok()) return packed;
    return std::unique_ptr<Bf16Linear>(new Bf16Linear(std::move(impl)));
  } catch (const dnnl::error& e) {
    return FromException(e);
  }
}

absl::Status Bf16Linear::Multiply(const float* x, int64_t m, float* out,
                                  kernels::ThreadPool& pool) {
  if (m == 0) return absl::OkStatus();
  try {
    return impl_->Multiply(x, m, out, pool);
  } catch (const dnnl::error& e) {
    return FromException(e);
  }
}

int64_t Bf16Linear::n() const { return impl_->n(); }
int64_t Bf16Linear::k() const { return impl_->k(); }
int64_t Bf16Linear::bytes() const { return impl_->bytes(); }
const std::string& Bf16Linear::implementation() const {
  return impl_->implementation();
}

}  // namespace onegrid::cpu
