//! The wallet: the only module that names cdk.
