//! Fabric's policies, as far as block validation needs them: signature policies and implicit meta policies.

use prost::Message;

use crate::certificate::Certificate;
use crate::channel_config::BlockValidation;
use crate::msp::Role;
use crate::proto::{common, msp as identity};

/// Deepest nesting of policies followed.
const MAX_DEPTH: usize = 16;

/// Why a policy cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The policy does not decode.
    #[error("the policy {0} does not decode")]
    Decode(String),
    /// Nested too deep.
    #[error("the policy {0} is nested deeper than {MAX_DEPTH} levels")]
    TooDeep(String),
}

/// A policy, with references to sub-policies followed.
#[derive(Debug, Clone)]
pub enum Policy {
    /// At least `needed` of these.
    Threshold {
        /// How many must hold.
        needed: usize,
        /// The rules.
        rules: Vec<Policy>,
    },
    /// One signature of somebody who matches.
    SignedBy(Principal),
}

/// Whom a rule means.
#[derive(Debug, Clone)]
pub enum Principal {
    /// Somebody with a role in an MSP.
    Role {
        /// The MSP's identifier.
        msp_id: String,
        /// The role.
        role: Role,
    },
    /// Somebody with an organizational unit.
    Unit {
        /// The MSP's identifier.
        msp_id: String,
        /// The unit's name.
        unit: String,
    },
    /// One certificate.
    Identity {
        /// The MSP's identifier.
        msp_id: String,
        /// Its certificate, DER.
        certificate: Vec<u8>,
    },
    /// A kind of principal that block validation does not use: nobody matches.
    Nobody,
}

/// A signer whose signature was found good, not yet whether it may sign.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The MSP that it names.
    pub msp_id: String,
    /// Its certificate.
    pub certificate: Certificate,
}

impl Default for Policy {
    /// Returns a policy that nothing satisfies.
    fn default() -> Self {
        Policy::Threshold { needed: 1, rules: Vec::new() }
    }
}

impl Policy {
    /// Reads the policy `name` of a configuration group; a policy that nothing satisfies when it is absent.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn of_group(group: &common::ConfigGroup, name: &str) -> Result<Policy, PolicyError> {
        Self::read(group, name, 0)
    }

    fn read(group: &common::ConfigGroup, name: &str, depth: usize) -> Result<Policy, PolicyError> {
        let decode_error = || PolicyError::Decode(name.to_owned());
        if depth > MAX_DEPTH {
            return Err(PolicyError::TooDeep(name.to_owned()));
        }
        let Some(policy) = group.policies.get(name).and_then(|policy| policy.policy.as_ref()) else {
            return Ok(Policy::default());
        };
        match common::policy::PolicyType::try_from(policy.r#type) {
            Ok(common::policy::PolicyType::Signature) => {
                let envelope =
                    common::SignaturePolicyEnvelope::decode(policy.value.as_slice()).map_err(|_| decode_error())?;
                let principals: Vec<Principal> = envelope.identities.iter().map(read_principal).collect();
                let rule = envelope.rule.ok_or_else(decode_error)?;
                read_rule(&rule, &principals, name, depth)
            }
            Ok(common::policy::PolicyType::ImplicitMeta) => {
                let meta = common::ImplicitMetaPolicy::decode(policy.value.as_slice()).map_err(|_| decode_error())?;
                let rules = group
                    .groups
                    .values()
                    .map(|group| Self::read(group, &meta.sub_policy, depth + 1))
                    .collect::<Result<Vec<_>, _>>()?;
                let needed = match meta.rule() {
                    common::implicit_meta_policy::Rule::Any => 1,
                    common::implicit_meta_policy::Rule::All => rules.len(),
                    common::implicit_meta_policy::Rule::Majority => rules.len() / 2 + 1,
                };
                // Fabric: a threshold above the number of rules is lowered only for an empty set.
                let needed = if rules.is_empty() { 0 } else { needed };
                Ok(Policy::Threshold { needed, rules })
            }
            _ => Ok(Policy::default()),
        }
    }

    /// Returns whether these signers satisfy the policy. As in Fabric, one signer counts for one rule only.
    pub fn is_satisfied_by(&self, signers: &[Signer], validation: &BlockValidation) -> bool {
        let mut used = vec![false; signers.len()];
        self.evaluate(signers, &mut used, validation)
    }

    fn evaluate(&self, signers: &[Signer], used: &mut [bool], validation: &BlockValidation) -> bool {
        match self {
            Policy::SignedBy(principal) => {
                for (signer, used) in signers.iter().zip(used) {
                    if !*used && principal.matches(signer, validation) {
                        *used = true;
                        return true;
                    }
                }
                false
            }
            Policy::Threshold { needed, rules } => {
                let mut held = 0;
                for rule in rules {
                    let mut attempt = used.to_vec();
                    if rule.evaluate(signers, &mut attempt, validation) {
                        held += 1;
                        used.copy_from_slice(&attempt);
                    }
                }
                held >= *needed
            }
        }
    }
}

fn read_rule(
    rule: &common::SignaturePolicy,
    principals: &[Principal],
    name: &str,
    depth: usize,
) -> Result<Policy, PolicyError> {
    if depth > MAX_DEPTH {
        return Err(PolicyError::TooDeep(name.to_owned()));
    }
    match rule.r#type.as_ref() {
        Some(common::signature_policy::Type::SignedBy(index)) => usize::try_from(*index)
            .ok()
            .and_then(|index| principals.get(index))
            .map(|principal| Policy::SignedBy(principal.clone()))
            .ok_or_else(|| PolicyError::Decode(name.to_owned())),
        Some(common::signature_policy::Type::NOutOf(list)) => Ok(Policy::Threshold {
            needed: usize::try_from(list.n).unwrap_or(0),
            rules: list
                .rules
                .iter()
                .map(|rule| read_rule(rule, principals, name, depth + 1))
                .collect::<Result<_, _>>()?,
        }),
        None => Err(PolicyError::Decode(name.to_owned())),
    }
}

fn read_principal(principal: &common::MspPrincipal) -> Principal {
    use common::msp_principal::Classification;
    let bytes = principal.principal.as_slice();
    match principal.principal_classification() {
        Classification::Role => match common::MspRole::decode(bytes) {
            Ok(role) => {
                let kind = match role.role() {
                    common::msp_role::MspRoleType::Member => Role::Member,
                    common::msp_role::MspRoleType::Admin => Role::Admin,
                    common::msp_role::MspRoleType::Client => Role::Client,
                    common::msp_role::MspRoleType::Peer => Role::Peer,
                    common::msp_role::MspRoleType::Orderer => Role::Orderer,
                };
                Principal::Role { msp_id: role.msp_identifier, role: kind }
            }
            Err(_) => Principal::Nobody,
        },
        Classification::OrganizationUnit => match common::OrganizationUnit::decode(bytes) {
            Ok(unit) => Principal::Unit { msp_id: unit.msp_identifier, unit: unit.organizational_unit_identifier },
            Err(_) => Principal::Nobody,
        },
        Classification::Identity => match identity::SerializedIdentity::decode(bytes) {
            Ok(identity) => match Certificate::from_pem(&identity.id_bytes) {
                Ok(certificate) => {
                    Principal::Identity { msp_id: identity.mspid, certificate: certificate.der().to_vec() }
                }
                Err(_) => Principal::Nobody,
            },
            Err(_) => Principal::Nobody,
        },
        _ => Principal::Nobody,
    }
}

impl Principal {
    fn matches(&self, signer: &Signer, validation: &BlockValidation) -> bool {
        let wanted = match self {
            Principal::Role { msp_id, .. } | Principal::Unit { msp_id, .. } | Principal::Identity { msp_id, .. } => {
                msp_id
            }
            Principal::Nobody => return false,
        };
        let Some(msp) = validation.msps.get(wanted).filter(|_| *wanted == signer.msp_id) else { return false };
        if !msp.vouches_for(&signer.certificate) {
            return false;
        }
        match self {
            Principal::Role { role, .. } => msp.has_role(&signer.certificate, *role),
            Principal::Unit { unit, .. } => signer.certificate.units().contains(unit),
            Principal::Identity { certificate, .. } => signer.certificate.der() == certificate,
            Principal::Nobody => false,
        }
    }
}
