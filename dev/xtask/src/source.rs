//! What one Rust file contains, as far as the house rules ask.

use syn::{spanned::Spanned, visit::Visit};

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, for methods without their type.
    pub name: String,
    /// The line of its signature.
    pub line: usize,
    /// From the signature to the closing brace.
    pub lines: usize,
    /// Without `self`.
    pub parameters: usize,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Outside tests.
    pub functions: Vec<Function>,
    /// Lines of test modules inside the file.
    pub test_lines: usize,
    /// Line and name of attributes that tests must not have.
    pub test_attributes: Vec<(usize, String)>,
    /// Lines with a call of something named `sleep` in tests.
    pub sleeps: Vec<usize>,
}

/// Parses a file. `is_test` says that all of it is test code.
pub fn scan(text: &str, is_test: bool) -> Result<Findings, String> {
    let file = syn::parse_file(text).map_err(|error| {
        let at = error.span().start();
        format!("{}: {error}", at.line)
    })?;
    let mut scan = Scan { findings: Findings::default(), in_test: usize::from(is_test), in_trait: false };
    scan.visit_file(&file);
    Ok(scan.findings)
}

struct Scan {
    findings: Findings,
    /// How many test modules or functions are around.
    in_test: usize,
    /// Whether this implements a trait: what its methods take was decided, and is measured, where that is declared.
    in_trait: bool,
}

impl Scan {
    fn function(&mut self, signature: &syn::Signature, whole: proc_macro2::Span) {
        if self.in_test > 0 {
            return;
        }
        let is_typed = |input: &&syn::FnArg| matches!(input, syn::FnArg::Typed(_));
        let start = signature.span().start().line;
        self.findings.functions.push(Function {
            name: signature.ident.to_string(),
            line: start,
            lines: whole.end().line + 1 - start,
            parameters: if self.in_trait { 0 } else { signature.inputs.iter().filter(is_typed).count() },
        });
    }

    fn nested(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let test = usize::from(attributes.iter().any(is_test));
        self.in_test += test;
        visit(self);
        self.in_test -= test;
    }
}

impl<'ast> Visit<'ast> for Scan {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if self.in_test == 0 && item.content.is_some() && item.attrs.iter().any(is_test) {
            let span = item.span();
            self.findings.test_lines += span.end().line + 1 - span.start().line;
        }
        self.nested(&item.attrs, |scan| syn::visit::visit_item_mod(scan, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.nested(&item.attrs, |scan| {
            scan.function(&item.sig, item.span());
            syn::visit::visit_item_fn(scan, item);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let before = std::mem::replace(&mut self.in_trait, item.trait_.is_some());
        syn::visit::visit_item_impl(self, item);
        self.in_trait = before;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.nested(&item.attrs, |scan| {
            scan.function(&item.sig, item.span());
            syn::visit::visit_impl_item_fn(scan, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.span());
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let Some(name) =
            ["ignore", "should_panic"].into_iter().find(|name| attribute.path().is_ident(name))
        {
            self.findings.test_attributes.push((attribute.span().start().line, name.to_owned()));
        }
        syn::visit::visit_attribute(self, attribute);
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if self.in_test > 0 && path.path.segments.last().is_some_and(|segment| segment.ident == "sleep") {
            self.findings.sleeps.push(path.span().start().line);
        }
        syn::visit::visit_expr_path(self, path);
    }
}

/// `#[test]`, `#[cfg(test)]` and the like of other runtimes (`#[tokio::test]`).
fn is_test(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("cfg") {
        return attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"));
    }
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, is_test: bool) -> String {
        let found = scan(text, is_test).unwrap();
        let functions: Vec<String> = found
            .functions
            .iter()
            .map(|f| format!("{}@{} {} lines {} parameters", f.name, f.line, f.lines, f.parameters))
            .collect();
        format!("{functions:?} {} {:?} {:?}", found.test_lines, found.test_attributes, found.sleeps)
    }

    #[test]
    fn production_functions_are_measured_and_tests_are_not() {
        let text = "//! x\nfn a(x: u8, y: u8) {\n}\nimpl S {\n    /// doc\n    fn b(&self, x: u8) {\n        f();\n    }\n}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n#[test]\nfn d() {}\n";
        let want = "[\"a@2 2 lines 2 parameters\", \"b@6 3 lines 1 parameters\"] 4 [] []";
        assert_eq!(shown(text, false), want);
        assert_eq!(shown(text, true), "[] 0 [] []");
    }

    #[test]
    fn what_a_trait_asks_for_is_not_the_implementations_fault() {
        let text = "trait T {\n    fn a(&self, x: u8, y: u8);\n}\nimpl T for S {\n    fn a(&self, x: u8, y: u8) {}\n}\nfn b(x: u8) {}\n";
        let want = "[\"a@2 1 lines 2 parameters\", \"a@5 1 lines 0 parameters\", \"b@7 1 lines 1 parameters\"] 0 [] []";
        assert_eq!(shown(text, false), want);
    }

    #[test]
    fn sleeps_and_attributes_are_found_where_they_count() {
        let text = "fn a() { thread::sleep(X); }\n#[tokio::test]\n#[ignore = \"slow\"]\nasync fn b() {\n  tokio::time::sleep(X).await;\n}\n#[cfg(test)]\nmod t {\n  #[should_panic]\n  fn c() { sleep(1) }\n}\n";
        assert!(
            shown(text, false).ends_with(r#" 5 [(3, "ignore"), (9, "should_panic")] [5, 10]"#),
            "{}",
            shown(text, false)
        );
        assert!(shown("fn a() { thread::sleep(X); }", true).ends_with(" 0 [] [1]"));
    }
}
