import TPU

/// Two slots of a weight tile or slice with their scales, and a semaphore for each.
struct WeightSlots {
    let elements: Buffer
    let scales: Buffer?
    let loaded: SemaphoreArray
    /// Rows of one slot.
    let rows: Int
}
