//! The objects of a cluster that a recovery point contains.

use fabkeep_platform::Declaration;
use fabkeep_store::PointReader;

use crate::EngineError;
use crate::point::RecoveryPoint;

/// Returns the objects of a recovery point.
pub(crate) fn declarations(point: &RecoveryPoint, reader: &PointReader<'_>) -> Result<Vec<Declaration>, EngineError> {
    let mut out = Vec::new();
    for object in &point.objects {
        let bytes = reader.blob(&object.blob)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| EngineError::Point {
            point: format!("{} {}/{}", object.kind, object.namespace, object.name),
            problem: error.to_string(),
        })?;
        out.push(Declaration {
            namespace: object.namespace.clone(),
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            name: object.name.clone(),
            object: value,
        });
    }
    Ok(out)
}
