// How long LibTorch's threads spin when they wait for each other.
#ifndef SERVICES_FINETUNER_SPIN_LIMIT_H_
#define SERVICES_FINETUNER_SPIN_LIMIT_H_

namespace onegrid::finetuner {

// LibTorch's OpenMP threads spin for milliseconds at each barrier. Alone on its
// cores a process gains some percent by that; beside another busy one it loses
// most of its speed (450 tokens/s fell to 20), because a thread spins through
// the time slice that the one it waits for needs. Starts this program again
// with a spin of about 0.1 ms, unless the environment says how to wait
// (OMP_WAIT_POLICY, GOMP_SPINCOUNT): OpenMP reads it only when a program
// starts. First thing in main; returns in the second run, or if it cannot be
// started.
void LimitSpinning(char** argv);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_SPIN_LIMIT_H_
