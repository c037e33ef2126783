// Tests of attention over both caches, on every instruction set that the
// machine running the test has.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/base/float_types.h"
#include "kernels/base/random_floats.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/reference/ops.h"
#include "kernels/reference/served_ops.h"

namespace onegrid::cpu {
namespace {

using kernels::Isa;
using kernels::RandomFloats;
using kernels::ThreadPool;
using reference::AttentionShape;

// Unit roundoff of float.
constexpr double kU = 0x1p-24;

// Decode and prefill, page edges, windows below, at and above a page, grouped
// heads, blocks of queries that do not fill a block, several key/value heads.
std::vector<AttentionShape> Shapes() {
  std::vector<AttentionShape> shapes;
  for (int64_t keys : {1, 3, 63, 64, 65, 129, 300}) {
    shapes.push_back({1, keys, 4, 1, 64, keys - 1, 0, 0.125});
  }
  for (int64_t window : {1, 2, 31, 64, 100}) {
    shapes.push_back({7, 170, 4, 1, 32, 163, window, 0.25});
  }
  for (int64_t queries : {2, 3, 4, 5, 13}) {
    shapes.push_back({queries, 131, 3, 1, 32, 131 - queries, 0, 0.2});
  }
  shapes.push_back({33, 33, 4, 2, 128, 0, 0, 0.09});
  shapes.push_back({5, 80, 2, 2, 512, 70, 48, 0.04});
  shapes.push_back({9, 70, 4, 1, 256, 61, 0, 0.0625});
  return shapes;
}

struct Inputs {
  explicit Inputs(const AttentionShape& s)
      : q(RandomFloats(s.queries * s.heads * s.head_dim, 1)),
        k(RandomFloats(s.keys * s.kv_heads * s.head_dim, 2)),
        v(RandomFloats(s.keys * s.kv_heads * s.head_dim, 3)) {}
  std::vector<float> q, k, v;
};

// The largest sum over one row of |q_i| |k_i| (times scale), over all pairs, is
// at most the product of the two rows' norms.
double LargestScore(const AttentionShape& s, const std::vector<float>& q,
                    const std::vector<float>& k) {
  const auto norm = [&](const std::vector<float>& x) {
    double largest = 0;
    for (size_t row = 0; row < x.size(); row += s.head_dim) {
      double sum = 0;
      for (int64_t i = 0; i < s.head_dim; ++i) {
        sum += double{x[row + i]} * double{x[row + i]};
      }
      largest = std::max(largest, std::sqrt(sum));
    }
    return largest;
  };
  return norm(q) * norm(k) * s.scale;
}

// An output is an average of values. If scores err by at most e, weights err by
// a factor within exp(+-2e) after normalization, so the output by 2e * 2 max|v|
// at most; summing n weighted values in floats adds 2 (n + 8) u max|v|, where
// the 8 covers exp, corrections from page to page and the division.
double Bound(const AttentionShape& s, double score_error,
             const std::vector<float>& v) {
  double largest = 0;
  for (float x : v) largest = std::max(largest, std::fabs(double{x}));
  return largest * (4 * score_error +
                    2 * static_cast<double>(s.keys + 8 + s.keys / 16) * kU);
}

// A weight of 16 bits is off by at most one of the 32,767 steps of a part's
// largest, half of it before and half after that of its group of columns; so
// an output by a 32,767th of the largest value for each key of a part.
double WeightError(const AttentionShape& s, const std::vector<float>& v) {
  double largest = 0;
  for (float x : v) largest = std::max(largest, std::fabs(double{x}));
  return largest * static_cast<double>(std::min(s.keys, kPartTokens)) / 32767;
}

double LargestDifference(const std::vector<float>& a,
                         const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - double{b[i]});
    if (!(difference <= largest)) largest = difference;  // Keeps a NaN.
  }
  return largest;
}

// Appends in two steps, so that a step starts inside a page.
template <typename Cache, typename... Extra>
Cache Filled(const AttentionShape& s, const Inputs& in, ThreadPool& pool,
             Extra... isa) {
  Cache cache(KvLayout{s.head_dim, s.kv_heads, s.keys});
  const int64_t first = s.keys / 3;
  const int64_t row = s.kv_heads * s.head_dim;
  cache.Append(in.k.data(), in.v.data(), first, pool, isa...);
  cache.Append(in.k.data() + first * row, in.v.data() + first * row,
               s.keys - first, pool, isa...);
  return cache;
}

template <typename Cache>
std::vector<float> RunAttend(const AttentionShape& s, const Cache& cache,
                             const std::vector<float>& q, ThreadPool& pool,
                             Isa isa) {
  std::vector<float> out(q.size(), -1.0f);
  const AttendItem<Cache> item = {&cache, q.data(), s.queries, s.first_pos,
                                  out.data()};
  Attend({&item, 1}, {s.heads, s.window, static_cast<float>(s.scale)}, pool,
         isa);
  return out;
}

// What the cache holds, as floats: keys still rotated.
struct Dequantized {
  Dequantized(const AttentionShape& s, const KvInt8& cache) {
    for (int64_t t = 0; t < s.keys; ++t) {
      for (int64_t head = 0; head < s.kv_heads; ++head) {
        const int64_t page = t / kPageTokens, at = t % kPageTokens;
        const int8_t* tile =
            cache.Keys(page, head) + at / kKeyTile * kKeyTile * s.head_dim;
        for (int64_t i = 0; i < s.head_dim; ++i) {
          const int code = tile[i / 4 * 64 + at % kKeyTile * 4 + i % 4];
          k.push_back(static_cast<float>(code) *
                      cache.KeyScales(page, head)[at]);
          const PageValues values = cache.Values(page, head);
          const int value =
              values.codes[i / 16 * 1024 + at / 4 * 64 + i % 16 * 4 + at % 4];
          const int64_t group = i / 32 * kPageTokens + at;
          v_steps.push_back(values.group_scales[group] *
                            values.token_scales[at]);
          v.push_back(static_cast<float>(value) * v_steps.back());
        }
      }
    }
  }
  std::vector<float> k, v, v_steps;
};

class AttentionTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::IsaSupported(GetParam())) GTEST_SKIP() << "no such processor";
  }
};

TEST_P(AttentionTest, F32MatchesReference) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const AttentionShape& s : Shapes()) {
      const Inputs in(s);
      const auto cache = Filled<KvF32>(s, in, pool);
      const auto out = RunAttend(s, cache, in.q, pool, GetParam());
      // d products and sums, the scaled query and exp's argument.
      const double score_error = static_cast<double>(s.head_dim + 4) * kU *
                                 LargestScore(s, in.q, in.k);
      EXPECT_LE(
          LargestDifference(out, reference::Attention(s, in.q, in.k, in.v)),
          Bound(s, score_error, in.v))
          << s.queries << " queries, " << s.keys << " keys, window "
          << s.window;
    }
  }
}

float RoundedToBf16(float x) {
  return kernels::Bf16ToFloat(kernels::FloatToBf16(x));
}

TEST_P(AttentionTest, Bf16GivesTheBitsOfF32OnRoundedKeysAndValues) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const AttentionShape& s : Shapes()) {
      Inputs in(s);
      const auto cache = Filled<KvBf16>(s, in, pool);
      const auto exact =
          RunAttend(s, Filled<KvF32>(s, in, pool), in.q, pool, GetParam());
      for (float& x : in.k) x = RoundedToBf16(x);
      for (float& x : in.v) x = RoundedToBf16(x);
      const auto rounded = Filled<KvF32>(s, in, pool);
      const auto out = RunAttend(s, cache, in.q, pool, GetParam());
      EXPECT_EQ(out, RunAttend(s, rounded, in.q, pool, GetParam()))
          << s.queries << " queries, " << s.keys << " keys, window "
          << s.window;
      EXPECT_NE(out, exact);
      EXPECT_EQ(2 * cache.bytes(), rounded.bytes());
    }
  }
}

// The 15-bit queries are within 1/508 of a step of amax / 127.
double QueryError(const AttentionShape& s, const std::vector<float>& q,
                  const std::vector<float>& k) {
  double q_max = 0, k_sum = 0;
  for (float x : q) q_max = std::max(q_max, std::fabs(double{x}));
  for (size_t row = 0; row < k.size(); row += s.head_dim) {
    double sum = 0;
    for (int64_t i = 0; i < s.head_dim; ++i) sum += std::fabs(k[row + i]);
    k_sum = std::max(k_sum, sum);
  }
  return q_max / 127 / 508 * k_sum * s.scale;
}

TEST_P(AttentionTest, Int8MatchesReferenceOnWhatTheCacheHolds) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const AttentionShape& s : Shapes()) {
      const Inputs in(s);
      const auto cache = Filled<KvInt8>(s, in, pool, GetParam());
      const auto out = RunAttend(s, cache, in.q, pool, GetParam());
      const Dequantized held(s, cache);
      const auto rotated =
          reference::Hadamard(in.q, s.queries * s.heads, s.head_dim);
      // Integer dot products are exact; rotating costs log2 d roundings.
      const double score_error = QueryError(s, rotated, held.k) +
                                 24 * kU * LargestScore(s, rotated, held.k);
      EXPECT_LE(LargestDifference(
                    out, reference::Attention(s, rotated, held.k, held.v)),
                Bound(s, score_error, held.v) + WeightError(s, held.v))
          << s.queries << " queries, " << s.keys << " keys, window "
          << s.window;
    }
  }
}

TEST_P(AttentionTest, OneStepInOneValueExceedsTheBound) {
  ThreadPool pool(1);
  const AttentionShape s = {1, 4, 2, 1, 64, 3, 0, 0.125};
  const Inputs in(s);
  const auto cache = Filled<KvInt8>(s, in, pool, GetParam());
  const auto out = RunAttend(s, cache, in.q, pool, GetParam());
  Dequantized held(s, cache);
  const auto rotated = reference::Hadamard(in.q, s.heads, s.head_dim);
  const double score_error = QueryError(s, rotated, held.k) +
                             24 * kU * LargestScore(s, rotated, held.k);
  for (int64_t t = 0; t < s.keys; ++t) {
    held.v[static_cast<size_t>(t * s.head_dim + 63)] +=
        held.v_steps[static_cast<size_t>(t * s.head_dim + 63)];
  }
  EXPECT_GT(
      LargestDifference(out, reference::Attention(s, rotated, held.k, held.v)),
      Bound(s, score_error, held.v) + WeightError(s, held.v));
}

TEST_P(AttentionTest, CacheHoldsRotatedKeysAndValuesWithinHalfAStep) {
  ThreadPool pool(2);
  const AttentionShape s = {1, 150, 2, 2, 128, 149, 0, 1.0};
  const Inputs in(s);
  const auto cache = Filled<KvInt8>(s, in, pool, GetParam());
  const Dequantized held(s, cache);
  const auto rotated =
      reference::Hadamard(in.k, s.keys * s.kv_heads, s.head_dim);
  for (size_t i = 0; i < rotated.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / s.head_dim;
    const int64_t t = row / s.kv_heads, head = row % s.kv_heads;
    const int64_t page = t / kPageTokens, at = t % kPageTokens;
    // Half a step, plus a few roundings of a code of up to 127.
    const float k_step = cache.KeyScales(page, head)[at];
    EXPECT_NEAR(held.k[i], rotated[i], k_step * (0.5 + 127 * 16 * kU));
    // A step is rounded to within half of a 32,767th of the token's largest.
    const double step_error =
        0.5 * cache.Values(page, head).token_scales[at] + 4 * kU;
    EXPECT_NEAR(held.v[i], in.v[i], held.v_steps[i] / 2 + 127 * step_error);
  }
}

TEST_P(AttentionTest, CacheHoldsWhatTheScalarRulesGiveBitForBit) {
  ThreadPool pool(1);
  for (int64_t d : {32, 64, 128, 256, 512}) {
    const AttentionShape s = {1, 70, 2, 2, d, 69, 0, 1.0};
    const Inputs in(s);
    const Dequantized held(s, Filled<KvInt8>(s, in, pool, GetParam()));
    reference::ServedCache plain(s.kv_heads, d);
    for (int64_t t = 0; t < s.keys; ++t) {
      const int64_t at = t * s.kv_heads * d;
      reference::ServedAppend(in.k.data() + at, in.v.data() + at, &plain);
    }
    for (size_t i = 0; i < held.k.size(); ++i) {
      const size_t token = i / d, group = i / 32;
      EXPECT_EQ(held.k[i], plain.keys[i] * plain.key_scales[token]);
      EXPECT_EQ(held.v[i], plain.values[i] * (plain.group_scales[group] *
                                              plain.token_scales[token]));
    }
  }
}

// Within half a step, and a few roundings of up to 32,767 steps.
TEST_P(AttentionTest, QueriesKeepSixteenBits) {
  const int64_t d = 256;
  const std::vector<float> x = RandomFloats(d, 5);
  alignas(64) int16_t codes[d];
  float scale;
  const AttentionKernels& run = AttentionKernelsFor(GetParam());
  const QueryPanel panel = {codes, &scale, 1};
  run.quantize_query(x.data(), d, 1.0f, 0, panel);
  float amax = 0;
  for (const float value : x) amax = std::max(amax, std::fabs(value));
  const double step = amax / 32767;
  // Keys that are 1 in one column show what the query holds there.
  double worst = 0;
  const std::vector<float> ones(kPageTokens, 1.0f);
  for (int64_t i = 0; i < d; i += kKeyTile) {
    std::vector<int8_t> keys(static_cast<size_t>(kPageTokens * d), 0);
    for (int64_t t = 0; t < kKeyTile; ++t) {
      keys[static_cast<size_t>((i + t) / 4 * 64 + 4 * t + (i + t) % 4)] = 1;
    }
    float held[kPageTokens];
    run.scores_int8(panel, d, keys.data(), ones.data(), nullptr, 0, 1, held,
                    kPageTokens);
    for (int64_t t = 0; t < kKeyTile; ++t) {
      const double error = std::fabs(double{held[t]} - x[i + t]);
      worst = std::max(worst, error / step);
    }
  }
  EXPECT_LE(worst, 0.5 + 32767 * 4 * kU);
  EXPECT_GT(worst, 0.4);
}

TEST_P(AttentionTest, SeveralSequencesAtOnceEqualOneByOne) {
  ThreadPool pool(3);
  std::vector<AttentionShape> shapes;
  for (int64_t keys : {5, 64, 200}) {
    shapes.push_back({1, keys, 4, 1, 64, keys - 1, 128, 0.125});
  }
  std::vector<KvInt8> caches;
  std::vector<Inputs> inputs;
  std::vector<std::vector<float>> outs;
  std::vector<AttendItem<KvInt8>> items;
  for (const AttentionShape& s : shapes) {
    inputs.emplace_back(s);
    caches.push_back(Filled<KvInt8>(s, inputs.back(), pool, GetParam()));
    outs.emplace_back(inputs.back().q.size());
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    items.push_back({&caches[i], inputs[i].q.data(), 1, shapes[i].first_pos,
                     outs[i].data()});
  }
  Attend(items, {4, 128, 0.125f}, pool, GetParam());
  ThreadPool one(1);
  for (size_t i = 0; i < shapes.size(); ++i) {
    EXPECT_EQ(outs[i],
              RunAttend(shapes[i], caches[i], inputs[i].q, one, GetParam()));
  }
}

TEST_P(AttentionTest, ReleasedPagesAreNotReadUnderAWindow) {
  ThreadPool pool(1);
  const AttentionShape s = {2, 300, 2, 1, 32, 298, 60, 0.2};
  const Inputs in(s);
  auto cache = Filled<KvInt8>(s, in, pool, GetParam());
  const auto before = RunAttend(s, cache, in.q, pool, GetParam());
  const int64_t bytes = cache.bytes();
  cache.ReleaseBefore(298 - 60 + 1);
  EXPECT_EQ(cache.bytes(), bytes / 5 * 2);
  EXPECT_EQ(RunAttend(s, cache, in.q, pool, GetParam()), before);
}

TEST(KvPagesTest, ReservedPagesAreThoseOfTheNextTokens) {
  ThreadPool pool(1);
  KvInt8 cache(KvLayout{32, 1, 200});
  const std::vector<float> x(200 * 32, 1.0f);
  cache.Append(x.data(), x.data(), 64, pool);
  const int64_t page = cache.bytes();
  cache.Reserve(0);
  EXPECT_EQ(cache.bytes(), page);
  cache.Reserve(65);
  EXPECT_EQ(cache.bytes(), 3 * page);
  EXPECT_EQ(cache.length(), 64);
  cache.Append(x.data(), x.data(), 65, pool);
  EXPECT_EQ(cache.bytes(), 3 * page);
  EXPECT_EQ(cache.length(), 129);
}

TEST_P(AttentionTest, TruncatedTokensAreReplacedByNewOnes) {
  ThreadPool pool(1);
  const AttentionShape s = {1, 100, 2, 1, 32, 99, 0, 0.2};
  const Inputs in(s);
  auto cache = Filled<KvInt8>(s, in, pool, GetParam());
  const auto before = RunAttend(s, cache, in.q, pool, GetParam());
  cache.Truncate(40);
  EXPECT_EQ(cache.length(), 40);
  cache.Append(in.k.data() + 40 * 32, in.v.data() + 40 * 32, 60, pool,
               GetParam());
  EXPECT_EQ(RunAttend(s, cache, in.q, pool, GetParam()), before);
}

TEST_P(AttentionTest, SharedPagesAreReadAndNotWrittenTo) {
  ThreadPool pool(1);
  const AttentionShape s = {1, 150, 2, 1, 32, 149, 0, 0.2};
  const Inputs in(s);
  auto first = Filled<KvInt8>(s, in, pool, GetParam());
  const auto expected = RunAttend(s, first, in.q, pool, GetParam());
  KvInt8 second(first.layout());
  second.Adopt({first.FullPage(0), first.FullPage(1)});
  EXPECT_EQ(second.length(), 128);
  second.Append(in.k.data() + 128 * 32, in.v.data() + 128 * 32, 22, pool,
                GetParam());
  EXPECT_EQ(RunAttend(s, second, in.q, pool, GetParam()), expected);
  // Other tokens in the middle of a shared page change one sequence only.
  second.Truncate(100);
  second.Append(in.k.data(), in.v.data(), 50, pool, GetParam());
  EXPECT_NE(RunAttend(s, second, in.q, pool, GetParam()), expected);
  EXPECT_EQ(RunAttend(s, first, in.q, pool, GetParam()), expected);
}

INSTANTIATE_TEST_SUITE_P(Isas, AttentionTest,
                         testing::ValuesIn(kernels::kAllIsas),
                         [](const auto& info) {
                           return kernels::IsaName(info.param);
                         });

}  // namespace
}  // namespace onegrid::cpu
