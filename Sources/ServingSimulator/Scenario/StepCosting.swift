import DeploymentModel

/// What says how long a step takes. It may remember what it has worked out, so asking changes it; what it answers
/// depends on the work alone.
public protocol StepCosting: Sendable {
    /// The time of a step, and what it is made of.
    mutating func cost(of work: StepWork) -> StepCost
}

extension Deployment: StepCosting {}
