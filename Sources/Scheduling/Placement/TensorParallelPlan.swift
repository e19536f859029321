/// How heads may be split over the devices of one instance.
public enum TensorParallelPlan {
    /// Throws a sentence when `groups` norm groups do not split over `degree` ranks. The linear layers' output norm takes
    /// its mean over one group of heads; heads of one group on two ranks would need an exchange in every layer, and
    /// without it the result is silently another one.
    public static func check(groups: Int, degree: Int) throws(PlacementRefusal) {
        guard groups > 0, degree > 0 else {
            throw .split("\(groups) norm groups cannot be split over \(degree) ranks")
        }
        guard groups % degree == 0 else {
            let fitting = (1...groups).filter { groups % $0 == 0 }.map(String.init).joined(separator: ", ")
            throw .split(
                "\(groups) norm groups do not split over \(degree) ranks: the heads of one group would be normalised "
                    + "apart; a tensor-parallel degree of \(fitting) keeps every group whole")
        }
    }
}
