-- What each model has to do, and how fast one of its workers is.
-- → {see demand_of} of each model
return demand_of_models()
