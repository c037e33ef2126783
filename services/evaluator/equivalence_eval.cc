#include "services/evaluator/equivalence_eval.h"

#include <algorithm>
#include <cmath>

#include "services/common/error_info.h"

namespace onegrid::evaluator {
namespace {

constexpr double kRestMin = 1e-7;

// Running sums over positions.
struct Sums {
  int64_t positions = 0;
  int64_t same_top1 = 0;
  double kl = 0;
  double kl_max = 0;
};

absl::Status CompareSequence(EngineClient& engine, const ProbeFile& probe,
                             int s, Sums& sums) {
  const absl::Span<const int32_t> tokens = probe.tokens(s);
  const absl::Span<const int32_t> top_ids = probe.top_ids(s);
  const absl::Span<const float> top_logprobs = probe.top_logprobs(s);
  v1::ScoreTokensRequest request;
  request.mutable_token_ids()->Add(tokens.begin(), tokens.end());
  request.set_first_scored(1);
  request.set_candidates_per_position(kProbeTop);
  request.mutable_candidate_ids()->Add(top_ids.begin(), top_ids.end());
  ASSIGN_OR_RETURN(const v1::ScoreTokensResponse response,
                   engine.Score(request));
  const absl::Span<const float> found(response.candidate_logprobs().data(),
                                      response.candidate_logprobs_size());
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const double kl = KlWithRest(top_logprobs.subspan(i * kProbeTop, kProbeTop),
                                 found.subspan(i * kProbeTop, kProbeTop));
    sums.kl += kl;
    sums.kl_max = std::max(sums.kl_max, kl);
    sums.same_top1 += response.argmax_ids(i) == top_ids[i * kProbeTop] ? 1 : 0;
    ++sums.positions;
  }
  return absl::OkStatus();
}

}  // namespace

double KlWithRest(absl::Span<const float> p, absl::Span<const float> q) {
  double kl = 0;
  double p_rest = 1;
  double q_rest = 1;
  for (size_t i = 0; i < p.size(); ++i) {
    const double probability = std::exp(double{p[i]});
    // A probability that underflows adds nothing, whatever q says.
    if (probability > 0) kl += probability * (double{p[i]} - q[i]);
    p_rest -= probability;
    q_rest -= std::exp(double{q[i]});
  }
  p_rest = std::max(p_rest, kRestMin);
  q_rest = std::max(q_rest, kRestMin);
  return kl + p_rest * std::log(p_rest / q_rest);
}

absl::StatusOr<v1::LogitAgreement> CompareLogits(
    EngineClient& engine, const ProbeFile& probe, absl::string_view stage,
    const EvalProgressFn& progress) {
  ASSIGN_OR_RETURN(const v1::ServerInfo info, engine.Info());
  Sums sums;
  for (int s = 0; s < probe.sequences(); ++s) {
    RETURN_IF_ERROR(CompareSequence(engine, probe, s, sums));
    if (progress) {
      RETURN_IF_ERROR(
          progress(stage, sums.positions, probe.positions(), nullptr));
    }
  }
  v1::LogitAgreement agreement;
  agreement.set_mean_kl(sums.kl / sums.positions);
  agreement.set_max_kl(sums.kl_max);
  agreement.set_top1_agreement(static_cast<double>(sums.same_top1) /
                               sums.positions);
  agreement.set_engine(DescribeEngine(info));
  return agreement;
}

v1::EquivalenceReport::Verdict Judge(const v1::EquivalenceReport& report,
                                     const AgreementBounds& bounds) {
  // A NaN fails every comparison, so it cannot pass.
  const bool passed =
      report.float_engine().mean_kl() <= bounds.kl_float &&
      report.float_engine().top1_agreement() >= bounds.top1_float &&
      report.served_engine().mean_kl() <= bounds.kl_served &&
      report.served_engine().top1_agreement() >= bounds.top1_served &&
      (!report.has_served_arithmetic() ||
       report.served_arithmetic().mean_kl() <= bounds.kl_served_arithmetic);
  return passed ? v1::EquivalenceReport::PASSED
                : v1::EquivalenceReport::FAILED_EQUIVALENCE;
}

}  // namespace onegrid::evaluator
