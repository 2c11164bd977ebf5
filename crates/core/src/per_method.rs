//! Settings by method, as gRPC's service config names them.

use crate::{Invalid, Methods};
use hashbrown::HashMap;

/// A value for each method: its own, else that of its service, else the default, if any.
///
/// There is no merging between the three (gRPC's `service_config.proto`, `MethodConfig.name`).
///
/// ```
/// use cinchona_core::PerMethod;
///
/// let mut limits = PerMethod::from(1);
/// limits.insert("calculator.Calculator", "", 2)?;
/// limits.insert("calculator.Calculator", "Add", 3)?;
/// assert_eq!(limits.get("/calculator.Calculator/Add"), Some(&3));
/// assert_eq!(limits.get("/calculator.Calculator/Sum"), Some(&2));
/// assert_eq!(limits.get("/other.Service/Call"), Some(&1));
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerMethod<T> {
    /// By `/service/method`.
    methods: HashMap<Box<str>, T>,
    /// By `/service/`.
    services: HashMap<Box<str>, T>,
    default: Option<T>,
}

// === impl PerMethod ===

impl<T> PerMethod<T> {
    /// No value for any method.
    pub fn new() -> Self {
        Self { methods: HashMap::new(), services: HashMap::new(), default: None }
    }

    /// Sets the value of `method` of `service`, of all its methods if `method` is empty, or the
    /// default if both are.
    ///
    /// # Errors
    /// When the name has a value already, has a slash, or has a method and no service.
    pub fn insert(&mut self, service: &str, method: &str, value: T) -> Result<(), Invalid> {
        let name = format!("/{service}/{method}");
        if service.contains('/') || method.contains('/') {
            let rule = "a service with its package, and a method, without slashes";
            return Err(Invalid::new("name", format!("{service:?}, {method:?}"), rule));
        }
        let before = match (service, method) {
            ("", "") => self.default.replace(value),
            ("", _) => return Err(Invalid::new("name", name, "a method only with its service")),
            (_, "") => self.services.insert(name.clone().into(), value),
            _ => self.methods.insert(name.clone().into(), value),
        };
        match before {
            Some(_) => Err(Invalid::new("name", name, "each name once")),
            None => Ok(()),
        }
    }

    /// The value of the method at `path`, such as `/calculator.Calculator/Add`.
    pub fn get(&self, path: &str) -> Option<&T> {
        if !self.methods.is_empty()
            && let Some(own) = self.methods.get(path)
        {
            return Some(own);
        }
        if !self.services.is_empty()
            && let Some(end) = path.rfind('/')
            && let Some(service) = self.services.get(&path[..=end])
        {
            return Some(service);
        }
        self.default.as_ref()
    }

    /// Whether each name is that of a method or a service that `methods` lists; true without a
    /// descriptor set.
    ///
    /// # Errors
    /// With the first unknown name, as a value of `field`.
    pub fn check(&self, field: &'static str, methods: &Methods) -> Result<(), Invalid> {
        let names = self.methods.keys().chain(self.services.keys());
        let mut strange: Vec<_> = names.filter(|name| !methods.has(name)).collect();
        strange.sort_unstable();
        match strange.first() {
            Some(name) => Err(Invalid::new(field, name, "names of the descriptor set")),
            None => Ok(()),
        }
    }

    /// Adds the methods and services of `others` that have no value here yet, neither of the method
    /// nor of its service.
    pub fn fill(&mut self, others: Self) {
        for (path, value) in others.methods {
            let service = path.rfind('/').map_or("", |slash| &path[..=slash]);
            if !self.services.contains_key(service) {
                self.methods.entry(path).or_insert(value);
            }
        }
        for (name, value) in others.services {
            self.services.entry(name).or_insert(value);
        }
    }

    /// The same names, each with what `change` makes of its value.
    #[must_use]
    pub fn map<U>(&self, mut change: impl FnMut(&T) -> U) -> PerMethod<U> {
        let methods = self.methods.iter().map(|(name, own)| (name.clone(), change(own))).collect();
        let services =
            self.services.iter().map(|(name, own)| (name.clone(), change(own))).collect();
        PerMethod { methods, services, default: self.default.as_ref().map(change) }
    }

    /// Every value, those of methods, of services, and the default.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.methods.values().chain(self.services.values()).chain(&self.default)
    }

    /// The methods that have a value of their own, by path.
    pub fn methods(&self) -> impl Iterator<Item = (&str, &T)> {
        self.methods.iter().map(|(path, value)| (&**path, value))
    }
}

impl<T> Default for PerMethod<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for PerMethod<T> {
    /// The same value for every method.
    fn from(value: T) -> Self {
        Self { default: Some(value), ..Self::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_value_and_a_method_needs_its_service() {
        let mut values = PerMethod::from(0);
        values.insert("a.B", "C", 1).unwrap();
        for (service, method, rule) in
            [("a.B", "C", "each name once"), ("", "", "each name once"), ("", "C", "its service")]
        {
            let refused = values.insert(service, method, 2).unwrap_err().to_string();
            assert!(refused.contains(rule), "{refused}");
        }
    }

    #[test]
    fn what_is_filled_in_takes_the_place_of_nothing() {
        let of = |names: &[(&str, &str, u8)]| {
            let mut values = PerMethod::new();
            names.iter().for_each(|(s, m, value)| values.insert(s, m, *value).unwrap());
            values
        };
        let mut own = of(&[("a.B", "", 1), ("c.D", "E", 2)]);
        own.fill(of(&[("a.B", "C", 3), ("c.D", "E", 4), ("c.D", "F", 5), ("c.D", "", 6)]));
        for (path, value) in [("/a.B/C", 1), ("/c.D/E", 2), ("/c.D/F", 5), ("/c.D/G", 6)] {
            assert_eq!(own.get(path), Some(&value), "{path}");
        }
    }

    #[test]
    fn the_values_are_those_of_methods_of_services_and_the_default() {
        let mut values = PerMethod::from(1);
        values.insert("a.B", "", 2).unwrap();
        values.insert("a.B", "C", 3).unwrap();
        let mut all: Vec<_> = values.values().copied().collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert_eq!(values.methods().collect::<Vec<_>>(), [("/a.B/C", &3)]);
        assert_eq!(PerMethod::<u8>::new().values().count(), 0);
    }

    #[test]
    fn a_path_of_any_form_is_looked_up() {
        let mut values = PerMethod::new();
        values.insert("a.B", "", 1).unwrap();
        for (path, expected) in
            [("/a.B/C", Some(&1)), ("/a.B/", Some(&1)), ("/a.B", None), ("", None), ("ü", None)]
        {
            assert_eq!(values.get(path), expected, "{path}");
        }
    }

    #[test]
    fn a_name_with_a_slash_is_refused() {
        for (service, method) in [("/a.B", "C"), ("a.B", "/C"), ("a.B/", ""), ("", "/")] {
            let refused = PerMethod::new().insert(service, method, 1).unwrap_err();
            assert!(refused.to_string().contains("without slashes"), "{refused}");
        }
    }

    #[test]
    fn the_first_name_that_no_method_has_is_refused_where_all_are_known() {
        use prost::Message;
        let call = prost_types::MethodDescriptorProto { name: Some("C".into()), ..<_>::default() };
        let service = prost_types::ServiceDescriptorProto {
            name: Some("B".into()),
            method: vec![call],
            ..<_>::default()
        };
        let file = prost_types::FileDescriptorProto {
            package: Some("a".into()),
            service: vec![service],
            ..<_>::default()
        };
        let set = prost_types::FileDescriptorSet { file: vec![file] }.encode_to_vec();
        let methods = Methods::from_file_descriptor_set(&set).unwrap();
        let mut values = PerMethod::from(1);
        values.insert("a.B", "C", 1).unwrap();
        values.insert("a.B", "", 1).unwrap();
        assert_eq!(values.check("limits", &methods), Ok(()));
        values.insert("a.B", "Z", 1).unwrap();
        values.insert("a.B", "D", 1).unwrap();
        let refused = values.check("limits", &methods).unwrap_err();
        assert_eq!(refused.field(), "limits");
        assert!(refused.to_string().contains("/a.B/D"), "{refused}");
        assert_eq!(values.check("limits", &Methods::unknown()), Ok(()));
    }

    #[test]
    fn what_is_made_of_each_value_has_the_same_name() {
        let mut values = PerMethod::from(1);
        values.insert("a.B", "", 2).unwrap();
        values.insert("a.B", "C", 3).unwrap();
        let tens = values.map(|value| value * 10);
        for (path, value) in [("/a.B/C", 30), ("/a.B/D", 20), ("/c.D/E", 10)] {
            assert_eq!(tens.get(path), Some(&value), "{path}");
        }
    }
}
