//! Counters of outliers.

/// How many outliers a balancer has found since it was created, and how many of them it did not
/// eject: the counters of gRFC A91.
///
/// The methods are `success_rate` and `failure_percentage`, as in gRPC, and `consecutive_failures`,
/// which gRPC does not have.
///
/// ```
/// use cinchona_policy::outlier::Ejections;
///
/// // Or `Balance::ejections`, of a balancer.
/// for (method, count) in Ejections::default().enforced() {
///     // grpc.lb.outlier_detection.ejections_enforced,
///     // with grpc.lb.outlier_detection.detection_method
///     assert_eq!(count, 0, "{method}");
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejections([Found; 3]);

/// The method of detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Its success rate is far below the mean.
    SuccessRate,
    /// It fails more than a share of its calls.
    FailurePercentage,
    /// It has failed so often in a row.
    ConsecutiveFailures,
}

/// The counts of one method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) ejected: u64,
    /// Spared by `enforcement_percentage`.
    pub(super) spared: u64,
    /// Not ejected as too many were already.
    pub(super) overflow: u64,
}

// === impl Ejections ===

impl Ejections {
    /// Each method, and how many endpoints were ejected by it
    /// (`grpc.lb.outlier_detection.ejections_enforced`).
    pub fn enforced(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.each().map(|(method, found)| (method, found.ejected))
    }

    /// Each method and each reason for which an outlier was not ejected, `enforcement_percentage`
    /// or `max_ejection_overflow`, and how often
    /// (`grpc.lb.outlier_detection.ejections_unenforced`).
    pub fn unenforced(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.each().flat_map(|(method, found)| {
            let Found { spared, overflow, .. } = found;
            let reasons = [("enforcement_percentage", spared), ("max_ejection_overflow", overflow)];
            reasons.map(|(reason, count)| (method, reason, count))
        })
    }

    pub(super) fn of(&mut self, method: Method) -> &mut Found {
        &mut self.0[method as usize]
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, Found)> {
        Method::ALL.map(Method::name).into_iter().zip(self.0)
    }
}

// === impl Method ===

impl Method {
    /// In order.
    const ALL: [Self; 3] = [Self::SuccessRate, Self::FailurePercentage, Self::ConsecutiveFailures];

    /// As metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::ConsecutiveFailures => "consecutive_failures",
        }
    }
}
