// The trimmed oneDNN has JIT implementations of the matmuls and weight reorders
// that this CPU can run, and computes them on the caller's thread pool.
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "oneapi/dnnl/dnnl_threadpool.hpp"

namespace onegrid {
namespace {

using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;

constexpr int64_t kM = 33, kK = 128, kN = 80;

// Runs everything on the calling thread and counts how often it is asked to.
class CallerPool : public dnnl::threadpool_interop::threadpool_iface {
 public:
  int get_num_threads() const override { return 2; }
  bool get_in_parallel() const override { return false; }
  uint64_t get_flags() const override { return 0; }
  void parallel_for(int n, const std::function<void(int, int)>& body) override {
    ++calls;
    for (int i = 0; i < n; ++i) body(i, n);
  }
  int calls = 0;
};

// Small integers: exact in every type and every order of summation.
int Source(int64_t i) { return static_cast<int>(i * 7 % 5) - 2; }
int Weight(int64_t i) { return static_cast<int>(i * 11 % 7) - 3; }

void Fill(int (*value)(int64_t), int64_t count, Type type, void* to) {
  for (int64_t i = 0; i < count; ++i) {
    if (type == Type::s8) {
      static_cast<int8_t*>(to)[i] = static_cast<int8_t>(value(i));
      continue;
    }
    const float f = static_cast<float>(value(i));
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof(bits));
    if (type == Type::bf16) {
      static_cast<uint16_t*>(to)[i] = static_cast<uint16_t>(bits >> 16);
    } else {
      std::memcpy(static_cast<uint32_t*>(to) + i, &bits, sizeof(bits));
    }
  }
}

// Multiplies Source [M, K] by Weight [N, K] transposed, with weights in the
// layout oneDNN chooses, and checks every output. Returns the implementation.
std::string Multiply(Type type) {
  CallerPool pool;
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream = dnnl::threadpool_interop::make_stream(engine, &pool);
  const Type out = type == Type::s8 ? Type::s32 : Type::f32;
  const dnnl::memory::desc a({kM, kK}, type, Tag::ab);
  const dnnl::memory::desc b({kK, kN}, type, Tag::ba);
  const dnnl::memory::desc c({kM, kN}, out, Tag::ab);
  const dnnl::matmul::primitive_desc matmul(
      engine, a, dnnl::memory::desc({kK, kN}, type, Tag::any), c);
  const std::string name = matmul.impl_info_str();
  if (name.find("ref") != std::string::npos) return name;

  dnnl::memory source(a, engine), plain(b, engine), result(c, engine);
  dnnl::memory packed(matmul.weights_desc(), engine);
  Fill(Source, kM * kK, type, source.get_data_handle());
  Fill(Weight, kN * kK, type, plain.get_data_handle());
  dnnl::reorder(plain, packed).execute(stream, plain, packed);
  dnnl::matmul(matmul).execute(stream, {{DNNL_ARG_SRC, source},
                                        {DNNL_ARG_WEIGHTS, packed},
                                        {DNNL_ARG_DST, result}});
  stream.wait();
  EXPECT_GT(pool.calls, 0);
  for (int64_t m = 0; m < kM; ++m) {
    for (int64_t n = 0; n < kN; ++n) {
      int want = 0;
      for (int64_t k = 0; k < kK; ++k) {
        want += Source(m * kK + k) * Weight(n * kK + k);
      }
      const void* at = result.get_data_handle();
      const float got =
          type == Type::s8
              ? static_cast<float>(static_cast<const int32_t*>(at)[m * kN + n])
              : static_cast<const float*>(at)[m * kN + n];
      EXPECT_EQ(got, want) << m << ", " << n;
    }
  }
  return name;
}

bool HasAvx2() { return __builtin_cpu_supports("avx2"); }

TEST(OnednnTest, FloatMatmulIsJitAndExact) {
  if (!HasAvx2()) GTEST_SKIP() << "needs AVX2";
  EXPECT_EQ(Multiply(Type::f32).find("ref"), std::string::npos);
}

TEST(OnednnTest, Int8MatmulIsJitAndExact) {
  if (!__builtin_cpu_supports("avx512vnni")) GTEST_SKIP() << "needs VNNI";
  EXPECT_EQ(Multiply(Type::s8).find("ref"), std::string::npos);
}

TEST(OnednnTest, Bf16MatmulIsJitAndExact) {
  if (!__builtin_cpu_supports("avx512bf16")) GTEST_SKIP() << "needs BF16";
  EXPECT_EQ(Multiply(Type::bf16).find("ref"), std::string::npos);
}

}  // namespace
}  // namespace onegrid
