//! Proves that adapters of any Burn module are found, by the right paths and in field order.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleVisitor, Param},
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor},
};
use common::{Numbers, bits, flex, gated, random_adapter, tensor, values};
use l1ra_core::{
    AdaptedLinear, GatedLora, Init, L1raConfig, Policy,
    allocation::{AdapterGates, PlanRules, plan, surgery},
    init::SeededNoise,
    walk::{self, AdapterData},
};

#[derive(Module, Debug)]
struct Attention {
    q: AdaptedLinear,
    v: AdaptedLinear,
}

#[derive(Module, Debug)]
struct Block {
    attention: Attention,
    plain: Linear,
    /// An adapter without a layer of ours, under a name of its own.
    side: GatedLora,
    gate: Option<AdaptedLinear>,
}

#[derive(Module, Debug)]
struct Custom {
    embed: AdaptedLinear,
    blocks: Vec<Block>,
    pair: (AdaptedLinear, AdaptedLinear),
    absent: Option<GatedLora>,
    present: Option<GatedLora>,
    scale: Param<Tensor<1>>,
    #[module(skip)]
    label: String,
    head: AdaptedLinear,
}

fn adapter(rank: usize, n: &mut Numbers) -> AdapterData {
    let mut data = random_adapter("", [6, 5], rank, n);
    data.c = (0..rank).map(|k| 0.1 * (k + 1) as f32).collect();
    data
}

fn layer(rank: Option<usize>, n: &mut Numbers, device: &Device) -> AdaptedLinear {
    let mut linear = AdaptedLinear::new(tensor(&n.signed(30), [6, 5], device), None);
    linear.adapter = rank.map(|rank| gated(&adapter(rank, n), device));
    linear
}

fn custom(device: &Device) -> Custom {
    let n = &mut Numbers::new(3);
    let block = |n: &mut Numbers, first: usize, gate: Option<Option<usize>>| Block {
        attention: Attention {
            q: layer(Some(first), n, device),
            v: layer(None, n, device),
        },
        plain: LinearConfig::new(2, 3).init(device),
        side: gated(&adapter(first + 1, n), device),
        gate: gate.map(|rank| layer(rank, n, device)),
    };
    Custom {
        embed: layer(None, n, device),
        blocks: vec![
            block(n, 1, None),
            block(n, 2, Some(Some(4))),
            block(n, 3, Some(None)),
        ],
        pair: (layer(Some(5), n, device), layer(Some(1), n, device)),
        absent: None,
        present: Some(gated(&adapter(2, n), device)),
        scale: Param::from_tensor(Tensor::ones([3], device)),
        label: "custom".into(),
        head: layer(Some(3), n, device),
    }
}

const FOUND: [(&str, usize); 11] = [
    ("blocks.0.attention.q", 1),
    ("blocks.0.side", 2),
    ("blocks.1.attention.q", 2),
    ("blocks.1.side", 3),
    ("blocks.1.gate", 4),
    ("blocks.2.attention.q", 3),
    ("blocks.2.side", 4),
    ("pair.0", 5),
    ("pair.1", 1),
    ("present", 2),
    ("head", 3),
];

fn found(module: &Custom) -> Vec<(String, usize)> {
    walk::adapters(module)
        .into_iter()
        .map(|view| (view.path.clone(), view.rank()))
        .collect()
}

#[test]
fn every_adapter_is_found_by_path_in_field_order() {
    for device in [flex(), flex().autodiff()] {
        let module = custom(&device);
        let want: Vec<(String, usize)> = FOUND
            .iter()
            .map(|(path, rank)| (path.to_string(), *rank))
            .collect();
        assert_eq!(found(&module), want);
        assert_eq!(found(&module), want, "the same again");
        assert_eq!(found(&module.clone()), want);
    }
}

#[test]
fn a_view_holds_the_adapter_that_its_path_names() {
    let module = custom(&flex().autodiff());
    let views = walk::adapters(&module);
    let check = |path: &str, adapter: &GatedLora| {
        let view = views.iter().find(|view| view.path == path).unwrap();
        assert_eq!(
            view.ids,
            [adapter.lora_a.id, adapter.lora_c.id, adapter.lora_b.id]
        );
        let data = view.data().unwrap();
        assert_eq!((data.d_in, data.d_out, data.rank()), (6, 5, adapter.rank()));
        assert_eq!(bits(&data.a), bits(&values(&adapter.lora_a.val())));
        assert_eq!(bits(&data.c), bits(&values(&adapter.lora_c.val())));
        assert_eq!(bits(&data.b), bits(&values(&adapter.lora_b.val())));
        assert_eq!(
            bits(&[data.scale]),
            bits(&values(&adapter.lora_scale.val()))
        );
        assert!(!view.a.is_autodiff(), "outside the graph");
    };
    check("blocks.1.side", &module.blocks[1].side);
    check(
        "blocks.2.attention.q",
        module.blocks[2].attention.q.adapter.as_ref().unwrap(),
    );
    check(
        "blocks.1.gate",
        module.blocks[1]
            .gate
            .as_ref()
            .unwrap()
            .adapter
            .as_ref()
            .unwrap(),
    );
    check("pair.1", module.pair.1.adapter.as_ref().unwrap());
    check("present", module.present.as_ref().unwrap());
    check("head", module.head.adapter.as_ref().unwrap());
}

#[test]
fn a_module_without_adapters_has_none() {
    assert!(walk::adapters(&LinearConfig::new(2, 3).init(&flex())).is_empty());
    let n = &mut Numbers::new(1);
    assert!(walk::adapters(&layer(None, n, &flex())).is_empty());
}

#[test]
fn only_adapters_and_foreign_parameters_are_trainable() {
    let n = &mut Numbers::new(1);
    let device = flex().autodiff();
    // A and B of rank 4 on [6, 5], and 4 gates; neither the base nor the scale.
    assert_eq!(
        walk::trainable_parameters(&layer(Some(4), n, &device)),
        4 * (6 + 5 + 1)
    );
    assert_eq!(walk::trainable_parameters(&layer(None, n, &device)), 0);
    let ranks: usize = FOUND.iter().map(|(_, rank)| rank).sum();
    let foreign = 3 * (2 * 3 + 3) + 3;
    assert_eq!(
        walk::trainable_parameters(&custom(&device)),
        ranks * 12 + foreign
    );
}

/// Everything that is no part of an adapter, by path.
#[derive(Default)]
struct Others {
    path: Vec<String>,
    seen: Vec<(String, Vec<u32>)>,
}

impl ModuleVisitor for Others {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self
            .path
            .last()
            .is_some_and(|name| name.starts_with("lora_"))
        {
            self.seen
                .push((self.path.join("."), bits(&values(&param.val()))));
        }
    }
}

/// A plan reaches adapters wherever they lie in the tree, and nothing else.
#[test]
fn a_plan_reaches_every_adapter_of_a_custom_module() {
    let module = custom(&flex().autodiff());
    let others = |module: &Custom| {
        let mut others = Others::default();
        module.visit(&mut others);
        others.seen
    };
    let before = others(&module);
    let views = walk::adapters(&module);
    let mut adapters: Vec<AdapterGates> = views
        .iter()
        .map(|view| AdapterGates {
            path: view.path.clone(),
            d_in: 6,
            d_out: 5,
            initial_rank: view.rank(),
            gates: view.gates().unwrap(),
            importance: Vec::new(),
        })
        .collect();
    for path in ["blocks.1.side", "pair.0", "head"] {
        adapters
            .iter_mut()
            .find(|adapter| adapter.path == path)
            .unwrap()
            .gates[0] = 0.0;
    }
    let plan = plan(
        &adapters,
        &PlanRules::new(
            &L1raConfig {
                policy: Policy::Lasso,
                ..Default::default()
            },
            &adapters,
        ),
    )
    .unwrap();
    assert_eq!(plan.spare, 3);
    let initial: HashMap<String, usize> = views
        .iter()
        .map(|view| (view.path.clone(), view.rank()))
        .collect();
    let mut noise = SeededNoise::new(0);
    let module =
        surgery::apply_to_module(module, &plan, &initial, &mut noise, Init::Gaussian, 0).unwrap();
    let ranks: Vec<usize> = found(&module).into_iter().map(|(_, rank)| rank).collect();
    assert_eq!(ranks, plan.ranks());
    assert_ne!(ranks, FOUND.map(|(_, rank)| rank));
    assert_eq!(others(&module), before);
    assert_eq!(module.label, "custom");
}
