// When guessing tokens ahead pays.
#ifndef SERVICES_INFERENCE_DRAFT_POLICY_H_
#define SERVICES_INFERENCE_DRAFT_POLICY_H_

namespace onegrid::inference {

// What a step of some rows takes on this machine with this model, learned from
// steps that ran: a straight line through them, recent ones weighing more.
// Thread-compatible.
class StepCost {
 public:
  // A step of rows >= 1, none of them a prompt's.
  void Add(int rows, double seconds);
  // Any unit if nothing was added.
  double Seconds(int rows) const;

 private:
  // Decaying sums over the steps.
  double count_ = 0;
  double rows_ = 0;
  double seconds_ = 0;
  double rows_squared_ = 0;
  double product_ = 0;
};

// How often the guesses for one sequence are right.
// Thread-compatible.
class DraftRecord {
 public:
  // A step in which `tried` guesses ran, of which the first `accepted` were
  // what the model said.
  void Add(int tried, int accepted);

  // How many of `available` guesses to run in a step that has `rows` rows
  // without them, one of which is this sequence's, so that most tokens a second
  // come out of it; 0 unless that is gain enough to be sure of. A sequence
  // whose guesses were left out is given another chance after some steps.
  int Choose(int available, int rows, const StepCost& cost);

  // The chance that a guess is right if those before it were.
  double acceptance() const;

 private:
  // Decaying counts.
  double tried_ = 0;
  double accepted_ = 0;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_DRAFT_POLICY_H_
